"""VAEs in the layout of the diffusers library, read without it; nothing in the folder is executed.

A folder holds ``config.json`` and ``diffusion_pytorch_model.safetensors`` (or ``.bin``). The
attention layers have had two sets of names, ``to_q`` and ``query``, and weights of linear layers or
of 1 x 1 convolutions.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowexp.autoencoders.base import frozen
from flowexp.autoencoders.folder_facts import CONFIG_JSON, read_json
from flowexp.autoencoders.kl import KLCodec
from flowexp.errors import UsageError

__all__ = ["read_vae", "weights_file"]

_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_ARGUMENTS = ("in_channels", "out_channels", "latent_channels", "block_out_channels",
              "layers_per_block", "norm_num_groups", "mid_block_add_attention", "use_quant_conv",
              "use_post_quant_conv")  # fmt: skip
_KEY = "autoencoder"


def weights_file(folder: Path) -> Path:
    """The file with the weights.

    Raises:
        UsageError: There is none.
    """
    found = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if found is None:
        raise UsageError(
            f"{folder} holds no weights, neither {_FILES[0]} nor {_FILES[1]}.",
            key=_KEY,
            remedy="Copy the file into that folder.",
        )
    return found


def read_vae(folder: Path) -> KLCodec:
    """The codec in a folder, frozen, on the CPU.

    Raises:
        UsageError: A file is missing or damaged, or describes another architecture.
    """
    described = read_json(folder)
    _require_known(described, folder)
    codec = KLCodec(**{name: described[name] for name in _ARGUMENTS if name in described})
    file = weights_file(folder)
    state = _renamed(_read(file))
    own = codec.state_dict()
    wrong = sorted(state.keys() ^ own.keys()) + sorted(
        name for name in state.keys() & own.keys() if state[name].shape != own[name].shape
    )
    if wrong:
        raise UsageError(
            f"the weights in {file} do not fit {CONFIG_JSON} beside them; the first that differs "
            f"is {wrong[0]}.",
            key=_KEY,
        )
    codec.load_state_dict(state)
    frozen(codec)
    return codec


def _require_known(described: Mapping[str, Any], folder: Path) -> None:
    """Refuse blocks other than the plain ones."""
    expected = {
        "act_fn": ("silu",),
        "down_block_types": ("DownEncoderBlock2D",),
        "up_block_types": ("UpDecoderBlock2D",),
    }
    for name, known in expected.items():
        value = described.get(name, known[0])
        for one in value if isinstance(value, list) else [value]:
            if one not in known:
                raise UsageError(
                    f"{folder / CONFIG_JSON} has {name}={one}; only {known[0]} is known.", key=_KEY
                )


def _read(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError,
            OSError) as error:  # fmt: skip
        raise UsageError(f"{file} cannot be read: {error}.", key=_KEY) from error
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise UsageError(f"{file} holds something else than named tensors.", key=_KEY)
    return content


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in float32 under the present names of attention layers."""
    found = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if "attentions" in parts:
            parts = [_OLD_NAMES.get(part, part) for part in parts]
            if tensor.ndim == 4:
                tensor = tensor[:, :, 0, 0]
        found[".".join(parts)] = tensor.float()
    return found
