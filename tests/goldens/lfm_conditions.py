"""Goldens of latent flow matching: masks and semantic maps as inputs of the network."""

import numpy as np
import torch

from flowexp.networks.conditions import Mask, SemanticMap, nearest


def load(case):
    with np.load(case, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}


def check_inpaint_mask(case):
    g = load(case)
    mask, expected = g["mask"].float(), g["mask_latent"].float()
    size = tuple(expected.shape[-2:])
    assert torch.equal(nearest(mask, size), expected)
    assert torch.equal(Mask()(mask, torch.zeros(len(mask), 4, *size)), expected)


def check_semantic_rescaler(case):
    g = load(case)
    weight, expected, maps = g["conv_weight"], g["out"], g["seg_index"].long()
    channels, classes = weight.shape[:2]
    encoder = SemanticMap(classes=classes, channels=channels)
    with torch.no_grad():
        encoder.project.weight.copy_(weight)
        found = encoder(maps, torch.zeros(len(maps), 4, *expected.shape[-2:]))
    tolerance = {"rtol": 0.0, "atol": 1e-5}
    torch.testing.assert_close(
        encoder.rescaled(maps, tuple(expected.shape[-2:])), g["rescaled"], **tolerance
    )
    torch.testing.assert_close(found, expected, **tolerance)


CHECKS = {"inpaint_mask": check_inpaint_mask, "semantic_rescaler": check_semantic_rescaler}
