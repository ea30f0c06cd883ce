"""The constructor arguments of EDM's networks, inferred from a state dict.

Names contain the resolutions, shapes the widths; only dropout cannot be inferred.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.networks import DhariwalUNet, SongUNet
from flowexp.published.edm_networks import network_part
from flowexp.published.model import Part

__all__ = ["edm_architecture"]

_LEVEL = re.compile(r"enc\.(\d+)x\1_")


def edm_architecture(state: Mapping[str, Tensor]) -> Part:
    """The network group for a state dict of SongUNet or DhariwalUNet, without prefix.

    Raises:
        UsageError: The state dict is that of another network.
    """
    adm = "out_conv.weight" in state
    try:
        arguments = _common(state) | ({} if adm else _song(state))
    except (KeyError, IndexError, ZeroDivisionError, ValueError) as error:
        raise _another(str(error)) from error
    part = network_part("DhariwalUNet" if adm else "SongUNet", arguments)
    try:
        with torch.device("meta"):
            built = (DhariwalUNet if adm else SongUNet)(**part.arguments)
    except ValueError as error:
        raise _another(str(error)) from error
    wanted = {name: value.shape for name, value in built.state_dict().items()}
    stored = {name: value.shape for name, value in state.items()}
    if wanted != stored:
        raise _another(min(n for n in wanted | stored if wanted.get(n) != stored.get(n)))
    return part


def _common(state: Mapping[str, Tensor]) -> dict[str, Any]:
    sizes = sorted({int(m[1]) for name in state if (m := _LEVEL.match(name))}, reverse=True)
    finest = f"enc.{sizes[0]}x{sizes[0]}"
    adm = "out_conv.weight" in state
    first, layer0 = state[f"{finest}_conv.weight"], state["map_layer0.weight"]
    blocks = sum(f"{finest}_block{i}.conv1.weight" in state for i in range(len(state)))
    channels = int(layer0.shape[1] if adm else first.shape[0])
    last = "out_conv" if adm else f"dec.{sizes[0]}x{sizes[0]}_aux_conv"
    widths = [state[f"enc.{r}x{r}_block{blocks - 1}.conv1.weight"].shape[0] for r in sizes]
    return {
        "img_resolution": sizes[0],
        "in_channels": int(first.shape[1]),
        "out_channels": int(state[f"{last}.weight"].shape[0]),
        "label_dim": _inputs(state, "map_label.weight"),
        "augment_dim": _inputs(state, "map_augment.weight"),
        "model_channels": channels,
        "channel_mult": [int(width) // channels for width in widths],
        "channel_mult_emb": int(layer0.shape[0]) // channels,
        "num_blocks": blocks,
        "attn_resolutions": [r for r in sizes if f"enc.{r}x{r}_block0.qkv.weight" in state],
    }


def _song(state: Mapping[str, Tensor]) -> dict[str, Any]:
    layers = {name.rpartition("_")[2].partition(".")[0] for name in state if "_aux_" in name}
    heads = sum(name.endswith("_aux_conv.weight") for name in state)
    channels = next(v for n, v in state.items() if re.match(r"enc\.\d+x\d+_conv\.weight", n))
    return {
        "embedding_type": "fourier" if "map_noise.freqs" in state else "positional",
        "channel_mult_noise": int(state["map_layer0.weight"].shape[1]) // channels.shape[0],
        "encoder_type": next((t for t in ("residual", "skip") if t in layers), "standard"),
        "decoder_type": "skip" if heads > 1 else "standard",
        "resample_filter": _taps(state),
    }


def _inputs(state: Mapping[str, Tensor], name: str) -> int:
    return int(state[name].shape[1]) if name in state else 0


def _taps(state: Mapping[str, Tensor]) -> list[int]:
    """The filter whose outer product is stored, as small integers."""
    for name, value in state.items():
        if name.endswith("resample_filter"):
            row = value[0, 0].double().sum(0)
            return [round(float(tap)) for tap in row / row.min()]
    return [1, 1]


def _another(reason: str) -> UsageError:
    return UsageError(
        f"the weights in the file do not fit a known network ({reason}).",
        key="file",
        remedy="Known networks: SongUNet and DhariwalUNet of EDM's code.",
    )
