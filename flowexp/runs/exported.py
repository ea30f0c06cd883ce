"""One safetensors file that is a whole model: weights, and the config of its parts as JSON.

The config names classes by ``_target_``. A file from elsewhere must not be able to name anything
that runs code, so only classes of flowexp's networks, paths and parameterizations are built.
"""

import hashlib
import importlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from flowexp.models import FlowModel

__all__ = ["EXPORTED_GROUPS", "load_exported", "write_exported"]

EXPORTED_GROUPS = ("path", "network", "parameterization")
_FORMAT = "flowexp-1"
_CLASS = re.compile(r"flowexp\.(?:networks|paths|parameterizations)(?:\.[a-z0-9_]+)*\.[A-Z]\w*")
# JSON has no infinity.
_FLOAT = "$float"


def write_exported(
    path: Path,
    state: "Mapping[str, Tensor]",
    *,
    config: Mapping[str, Any],
    facts: Mapping[str, str],
) -> Path:
    """Write a model.

    Args:
        path: Where to, ``.safetensors``.
        state: The network's state dict.
        config: Plain config with the nodes of ``EXPORTED_GROUPS``.
        facts: What else to say about the weights, for example whose average they are.
    """
    from safetensors.torch import save_file

    from flowexp.files import write_atomically

    # A channels-last network keeps its tensors in another order than safetensors writes.
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    nodes = {name: config[name] for name in EXPORTED_GROUPS}
    metadata = {
        "format": _FORMAT,
        "config": json.dumps(_encoded(nodes), allow_nan=False),
        "sha256": _digest(tensors),
        **facts,
    }
    return write_atomically(path, lambda beside: save_file(tensors, beside, metadata=metadata))


def load_exported(path: Path | str) -> "FlowModel":
    """The model in a file of ``flowexp export``, in evaluation mode on the CPU.

    Args:
        path: The file; nothing else is needed.

    Raises:
        UsageError: The file is missing, damaged, changed, or names a class that is none of
            flowexp's networks, paths and parameterizations.
    """
    from flowexp.config.instantiate import instantiate
    from flowexp.models import FlowModel

    file = Path(path)
    tensors, metadata = _read(file)
    if _digest(tensors) != metadata.get("sha256"):
        raise UsageError(f"{file} was changed: its weights have another sha256.", key="file")
    try:
        nodes = _decoded(json.loads(metadata["config"]))
        wanted = {name: nodes[name] for name in EXPORTED_GROUPS}
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{file} holds no config of a model.", key="file") from error
    _refuse_other_classes(wanted, file)
    built = {name: instantiate(node, key=name) for name, node in wanted.items()}
    try:
        built["network"].load_state_dict(tensors)
    except RuntimeError as error:
        raise UsageError(f"the weights in {file} do not fit its config.", key="file") from error
    built["network"].eval()
    return FlowModel(built.pop("path"), **built)


def _read(file: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise UsageError(f"there is no file {file}.", key="file")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{file} cannot be read: {error}.", key="file") from error
    if metadata.get("format") != _FORMAT:
        raise UsageError(
            f"{file} is no file of flowexp export (format {metadata.get('format')!r}).",
            key="file",
            remedy="Published checkpoints are read by flowexp import.",
        )
    return tensors, metadata


def _digest(tensors: "Mapping[str, Tensor]") -> str:
    """sha256 (hex) over names, shapes, types and bytes, in the order of the names."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _refuse_other_classes(node: object, file: Path) -> None:
    if isinstance(node, Mapping):
        if "_target_" in node and not _is_ours(node["_target_"]):
            raise UsageError(
                f"{file} was not loaded: it names {node['_target_']}, which is none of flowexp's "
                f"networks, paths or parameterizations.",
                key="file",
            )
        for value in node.values():
            _refuse_other_classes(value, file)
    elif isinstance(node, list):
        for value in node:
            _refuse_other_classes(value, file)
    elif isinstance(node, str) and "${" in node:
        raise UsageError(f"{file} was not loaded: its config is not resolved.", key="file")


def _is_ours(target: object) -> bool:
    """Whether a dotted name is a class that flowexp itself defines."""
    if not isinstance(target, str) or not _CLASS.fullmatch(target):
        return False
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__.startswith("flowexp.")


def _encoded(node: object) -> object:
    if isinstance(node, Mapping):
        return {str(key): _encoded(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_encoded(value) for value in node]
    if isinstance(node, float) and not math.isfinite(node):
        return {_FLOAT: str(node)}
    return node


def _decoded(node: Any) -> Any:  # noqa: ANN401 - a JSON value is what it is
    if isinstance(node, dict):
        if node.keys() == {_FLOAT}:
            return float(node[_FLOAT])
        return {key: _decoded(value) for key, value in node.items()}
    return [_decoded(value) for value in node] if isinstance(node, list) else node
