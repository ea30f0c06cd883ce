"""Rectified flow's ``checkpoint_K.pth`` as a published model.

The authors' network is score_sde's DDPM++, one list ``all_modules.0``, ``all_modules.1`` ..., whose
order is that of the forward pass; EDM's SongUNet computes the same function with named levels. Only
the variant that rectified flow uses on small images is mapped: positional embedding, BigGAN blocks
without a second input or output branch.

Source: Song et al., 2021, arXiv 2011.13456, appendix C and the authors' ``models/ncsnpp.py``.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.files import file_sha256
from flowexp.networks import SongUNet
from flowexp.networks.songunet_layers import GroupNorm, UNetBlock
from flowexp.published.edm_parts import network_part, shape_of
from flowexp.published.model import Part, Published, Reader
from flowexp.published.score_sde import read_score_sde

__all__ = ["RectifiedFlow"]

# c_noise of the authors' networks is 999 times their time, which runs from noise to data.
_TIME_SCALE = 999.0
_TOLERANCE = 1e-5
_LIST = re.compile(r"all_modules\.(\d+)\.(.+)")
_BLOCK = {
    "GroupNorm_0": "norm0",
    "Conv_0": "conv0",
    "Dense_0": "affine",
    "GroupNorm_1": "norm1",
    "Conv_1": "conv1",
    "Conv_2": "skip",
}
# Every published configuration of this family has attention at 16 x 16.
_ATTENTION_RESOLUTION = 16


class RectifiedFlow(Reader):
    """A rectified flow on score_sde's DDPM++.

    The file does not state what its network predicts; a rectified flow is assumed. For another
    model of that code base (score_sde's own), set ``path`` and ``parameterization``.

    Source: Liu et al., 2022, arXiv 2209.03003, and the authors' ``sde_lib.py``.
    """

    def read(self, path: Path) -> Published:
        stored = read_score_sde(path)
        network = _network(stored.raw)
        return Published(
            format="rectified flow checkpoint",
            path=path,
            sha256=file_sha256(path),
            parts={
                "network": network,
                "path": Part("linear"),
                "parameterization": Part("reversed_velocity", {"time_scale": _TIME_SCALE}),
                "timestep": Part("uniform"),
                "objective": Part("flow_matching"),
                "sampler": Part("dopri5", {"rtol": _TOLERANCE, "atol": _TOLERANCE}),
            },
            shape=shape_of(network),
            weights=_weights(stored.raw, network),
            averaged=_weights(stored.ema, network),
            step=stored.step,
            notes=("the file does not state what its network predicts; assumed: a rectified flow",),
        )


@dataclass(frozen=True)
class _Module:
    """One entry of the authors' list: its kind and its tensors by name."""

    kind: str
    tensors: Mapping[str, Tensor]

    @property
    def resamples(self) -> bool:
        """Whether a block changes the resolution: its shortcut is not needed for its widths."""
        if self.kind != "block" or "Conv_2.weight" not in self.tensors:
            return False
        width: Tensor = self.tensors["Conv_0.weight"]
        return width.shape[0] == width.shape[1]


def _network(state: Mapping[str, Tensor]) -> Part:
    """The network group for a state dict of the authors' DDPM++."""
    modules = _modules(state)
    blocks = [place for place, module in enumerate(modules) if module.kind == "block"]
    levels = sum(module.resamples for module in modules) // 2 + 1
    per_level, rest = divmod(len(blocks) - 3 * levels, 2 * levels)
    if len(modules) < 8 or modules[2].kind != "conv" or rest or per_level < 1:
        raise _another("its blocks do not form levels")
    width, channels = modules[2].tensors["weight"].shape[:2]
    # The first block of each level; its last one halves the resolution.
    firsts = blocks[:: per_level + 1][:levels]
    mult = [int(modules[i].tensors["Conv_0.weight"].shape[0]) // int(width) for i in firsts]
    attention = [modules[i + 1].kind == "attention" for i in firsts]
    if not any(attention):
        raise _another("no level has attention, so its resolution is unknown")
    return network_part(
        "SongUNet",
        {
            "img_resolution": _ATTENTION_RESOLUTION << attention.index(True),
            "in_channels": int(channels),
            "out_channels": int(channels),
            "model_channels": int(width),
            "channel_mult": mult,
            "num_blocks": per_level,
            "attn_resolutions": [_ATTENTION_RESOLUTION],
            "dropout": 0.15,
        },
    )


def _weights(state: Mapping[str, Tensor], network: Part) -> dict[str, Tensor]:
    """The authors' weights under our names."""
    with torch.device("meta"):
        built = SongUNet(**network.arguments)
    wanted = built.state_dict()
    named = _renamed(iter(_modules(state)), built)
    for name, value in wanted.items():
        if name.endswith("resample_filter"):
            named[name] = torch.full(value.shape, 1.0 / value.numel())
    wrong = [n for n in wanted if n not in named or named[n].shape != wanted[n].shape]
    if wrong or len(named) != len(wanted):
        raise _another(f"{(wrong or sorted(named.keys() - wanted.keys()))[0]} does not fit")
    return {name: named[name] for name in wanted}


def _renamed(modules: Iterator[_Module], network: SongUNet) -> dict[str, Tensor]:
    """Both lists are in the order of the forward pass."""
    named = _plain(modules, "linear", "map_layer0") | _plain(modules, "linear", "map_layer1")
    for part, layers in (("enc", network.enc), ("dec", network.dec)):
        for key, layer in layers.items():
            if isinstance(layer, UNetBlock):
                named |= _block(modules, f"{part}.{key}", attention=layer.heads > 0)
            else:
                kind = "norm" if isinstance(layer, GroupNorm) else "conv"
                named |= _plain(modules, kind, f"{part}.{key}")
    return named


def _plain(modules: Iterator[_Module], kind: str, name: str) -> dict[str, Tensor]:
    tensors = _next(modules, kind, name).tensors
    return {f"{name}.{key}": value for key, value in tensors.items()}


def _block(modules: Iterator[_Module], name: str, *, attention: bool) -> dict[str, Tensor]:
    named = {}
    for key, value in _next(modules, "block", name).tensors.items():
        layer, _, leaf = key.partition(".")
        if layer not in _BLOCK:
            raise _another(f"a block has a layer {layer}")
        shape = (*value.shape, 1, 1) if layer == "Conv_2" and value.ndim == 2 else value.shape
        named[f"{name}.{_BLOCK[layer]}.{leaf}"] = value.reshape(shape)
    if attention:
        named |= _attention(_next(modules, "attention", name).tensors, name)
    return named


def _attention(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """One convolution for query, key and value, whose outputs are interleaved channel by channel.

    The authors' 1x1 layers store (in, out); convolutions store (out, in, 1, 1).
    """
    three = ("NIN_0", "NIN_1", "NIN_2")
    weight = torch.stack([tensors[f"{n}.W"].T for n in three], dim=1).flatten(0, 1)
    bias = torch.stack([tensors[f"{n}.b"] for n in three], dim=1).flatten()
    return {
        f"{name}.norm2.weight": tensors["GroupNorm_0.weight"],
        f"{name}.norm2.bias": tensors["GroupNorm_0.bias"],
        f"{name}.qkv.weight": weight[:, :, None, None].contiguous(),
        f"{name}.qkv.bias": bias,
        f"{name}.proj.weight": tensors["NIN_3.W"].T[:, :, None, None].contiguous(),
        f"{name}.proj.bias": tensors["NIN_3.b"],
    }


def _next(modules: Iterator[_Module], kind: str, name: str) -> _Module:
    module = next(modules, None)
    if module is None or module.kind != kind:
        found = "nothing" if module is None else f"a layer of kind {module.kind}"
        raise _another(f"{found} in place of {name}")
    return module


def _modules(state: Mapping[str, Tensor]) -> list[_Module]:
    grouped: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        match = _LIST.fullmatch(name)
        if match is not None:
            grouped.setdefault(int(match[1]), {})[match[2]] = value
        elif name != "sigmas":
            raise _another(f"it has a tensor {name}")
    return [_Module(_kind(tensors), tensors) for _, tensors in sorted(grouped.items())]


def _kind(tensors: Mapping[str, Tensor]) -> str:
    if {"Conv_0.weight", "Conv_1.weight", "Dense_0.weight"} <= tensors.keys():
        return "block"
    if {"NIN_0.W", "NIN_3.W", "GroupNorm_0.weight"} <= tensors.keys():
        return "attention"
    if tensors.keys() == {"weight", "bias"}:
        return {1: "norm", 2: "linear", 4: "conv"}.get(tensors["weight"].ndim, "unknown")
    return f"unknown ({', '.join(sorted(tensors)[:2])})"


def _another(reason: str) -> UsageError:
    return UsageError(
        f"the network in the file is not score_sde's DDPM++ ({reason}).",
        key="file",
        remedy="Only that architecture (positional embedding, BigGAN blocks) can be imported.",
    )
