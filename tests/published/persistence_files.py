"""Files as NVIDIA's ``persistence`` writes them, made of flowexp's own networks."""

import contextlib
import pickle
import sys
import types
from collections import OrderedDict

import torch
from torch import nn

from flowexp.networks import DhariwalUNet, SongUNet

SOURCE = "raise RuntimeError('module_src was executed')\n"
TINY = {
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.1,
}


def _reconstruct_persistent_obj(meta):
    raise AssertionError("the authors' loader was called")


class EasyDict(dict):
    pass


class Stored:
    """Pickled as a call of the authors' loader."""

    def __init__(self, class_name, state, **meta):
        self.meta = {"type": "class", "version": 6, "module_src": SOURCE}
        self.meta |= {"class_name": class_name, "state": state} | meta

    def __reduce__(self):
        return _reconstruct_persistent_obj, (self.meta,)


class StoredContainer:
    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return nn.ModuleDict, (), self.state


@contextlib.contextmanager
def authors_modules():
    """The authors' modules exist while a file is written, and only then."""
    modules = {}
    for name, part in (("torch_utils.persistence", _reconstruct_persistent_obj),
                       ("dnnlib.util", EasyDict)):  # fmt: skip
        modules[name] = types.ModuleType(name)
        modules[name.partition(".")[0]] = types.ModuleType(name.partition(".")[0])
        setattr(modules[name], part.__name__, part)
        part.__module__ = name
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def stored_module(module, class_name=None, arguments=None):
    state = {
        "training": False,
        "_parameters": OrderedDict(module._parameters),
        "_buffers": OrderedDict(module._buffers),
        "_modules": OrderedDict((k, stored_module(m)) for k, m in module._modules.items() if m),
        "_non_persistent_buffers_set": set(),
    }
    if isinstance(module, nn.ModuleDict):
        return StoredContainer(state)
    state |= {"_init_args": (), "_init_kwargs": EasyDict(arguments or {})}
    return Stored(class_name or type(module).__name__, state)


def network(kind="SongUNet", **arguments):
    torch.manual_seed(0)
    built = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}[kind](**{**TINY, **arguments})
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.1)
    return built.eval()


def stored_precond(class_name, net, *, arguments=None, attributes=None, buffers=None, **network_):
    """A stored preconditioner around a network of :func:`network`."""
    label_dim = net.label_dim
    inner = {**TINY, "label_dim": label_dim, "out_channels": net.out_channels, **network_}
    outer = {"img_resolution": 8, "img_channels": 3, "label_dim": label_dim, "use_fp16": False}
    outer |= {"model_type": type(net).__name__, **(arguments or {})}
    state = {
        "_parameters": OrderedDict(),
        "_buffers": OrderedDict(buffers or {}),
        "_modules": OrderedDict(model=stored_module(net, type(net).__name__, inner)),
        "_init_args": (),
        "_init_kwargs": EasyDict(outer),
        **(attributes or {}),
    }
    return Stored(class_name, state)


def write_snapshot(path, ema, protocol=4, **more):
    content = EasyDict(ema=ema, loss_fn=None, augment_pipe=None, dataset_kwargs=EasyDict(), **more)
    with authors_modules(), path.open("wb") as file:
        pickle.dump(content, file, protocol=protocol)
    return path


def write_state(path, **content):
    with authors_modules():
        torch.save(content, path)
    return path
