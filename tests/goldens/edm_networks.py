"""Checks of the EDM golden cases that concern bare networks (collected by test_edm.py).

The rules "fill" and "cfg_json" are those of the golden folder's README: a state dict is visited in
sorted order and filled from numpy's RandomState.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowexp.networks import DhariwalUNet, ImageNetwork, SongUNet

TOLERANCE = {"rtol": 2e-4, "atol": 2e-4}
CLASSES: dict[str, type[ImageNetwork]] = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}

_CIFAR10 = {"img_resolution": 32, "channel_mult": [2, 2, 2], "augment_dim": 9}
_FFHQ = {"img_resolution": 64, "channel_mult": [1, 2, 2, 2], "augment_dim": 9}
_VP = {"cls": "SongUNet"}
_VE = {
    "cls": "SongUNet",
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "cifar10-32x32-uncond-vp": _CIFAR10 | _VP,
    "cifar10-32x32-cond-vp": _CIFAR10 | _VP | {"label_dim": 10},
    "cifar10-32x32-uncond-ve": _CIFAR10 | _VE,
    "cifar10-32x32-cond-ve": _CIFAR10 | _VE | {"label_dim": 10},
    "ffhq-64x64-uncond-vp": _FFHQ | _VP,
    "ffhq-64x64-uncond-ve": _FFHQ | _VE,
    "imagenet-64x64-cond-adm": {"cls": "DhariwalUNet", "img_resolution": 64, "label_dim": 1000},
}


def build(config: dict[str, Any]) -> ImageNetwork:
    """The network of a golden file's ``cfg_json``, in evaluation mode."""
    arguments = {"in_channels": 3, "out_channels": 3} | config
    return CLASSES[arguments.pop("cls")](**arguments).eval()


def fill(network: nn.Module, seed: int) -> None:
    """Overwrite the state dict by the README's rule."""
    rs = np.random.RandomState(seed)
    state = network.state_dict()
    for name in sorted(state):
        if name.endswith("resample_filter"):
            continue
        shape = tuple(state[name].shape)
        z = rs.standard_normal(shape)
        if name.endswith(".bias"):
            z = 0.1 * z
        elif not name.endswith("freqs"):
            z = 1 + 0.2 * z if len(shape) == 1 else z / np.sqrt(np.prod(shape[1:]))
        state[name].copy_(torch.from_numpy(z.astype(np.float32)))


def load_weights(network: nn.Module, data: Any) -> None:
    """Stored weights (``sd/NAME``) if the file has them, else the fill rule."""
    stored = {
        key.removeprefix("sd/"): torch.from_numpy(data[key])
        for key in data.files
        if key.startswith("sd/")
    }
    if stored:
        network.load_state_dict(stored, strict=True)
    else:
        fill(network, int(data["fill_seed"]))


def check_network(case: Path) -> None:
    """Outputs with all conditions, without augmentation and with the zero label."""
    data = np.load(case)
    network = build(json.loads(str(data["cfg_json"])))
    load_weights(network, data)

    def optional(key: str) -> Tensor | None:
        return torch.from_numpy(data[key]) if key in data.files else None

    x, c_noise = torch.from_numpy(data["x"]), torch.from_numpy(data["c_noise"])
    labels, augment = optional("class_labels"), optional("augment_labels")
    with torch.inference_mode():
        outputs = {
            "out": network(x, c_noise, labels, augment),
            "out_no_augment": network(x, c_noise, labels, None),
        }
        if network.label_dim:
            zero = torch.zeros(1, network.label_dim)
            outputs["out_zero_label"] = network(x, c_noise, zero, augment)
    for name in {key for key in data.files if key.startswith("out")}:
        torch.testing.assert_close(outputs[name], torch.from_numpy(data[name]), **TOLERANCE)


def check_state_dict_shapes(case: Path) -> None:
    """Names, shapes, order and parameter count of published configurations."""
    for run, expected in json.loads(case.read_text()).items():
        with torch.device("meta"):
            network = build(PUBLISHED[run])
        shapes = [[name, list(value.shape)] for name, value in network.state_dict().items()]
        assert shapes == [[name, shape] for name, shape in expected["tensors"].items()], run
        assert sum(p.numel() for p in network.parameters()) == expected["num_params"], run


CHECKS: dict[str, Callable[[Path], None]] = {
    "net_": check_network,
    "statedict_shapes": check_state_dict_shapes,
}
