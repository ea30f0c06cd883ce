"""Post-training quantisation of weights: levels, names, in place."""

import pytest
import torch
from torch import nn

from flowexp.errors import UsageError
from flowexp.networks import SongUNet
from flowexp.networks.quantization import Quantize, Unchanged, quantized


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [2, 5, 9])
def test_few_levels_and_half_a_level_of_error(bits):
    w = normal(40, 30)
    found, zero = quantized(w, bits=bits)
    levels = 2**bits - 1
    scale = float(w.max() - w.min()) / levels
    assert found.unique().numel() <= levels + 1
    # The zero point is truncated, so that one end may lose up to one level more.
    assert float((found - w).abs().max()) <= 1.5 * scale * (1 + 1e-5)
    assert float((found - w).abs().median()) <= 0.5 * scale
    assert 0 <= zero <= levels
    again, _ = quantized(found, bits=bits)
    assert again.unique().numel() <= levels + 1


def test_constant_and_one_sided_tensors():
    assert torch.equal(quantized(torch.full((3,), 0.7), bits=8)[0], torch.full((3,), 0.7))
    assert quantized(normal(9).abs() + 1.0, bits=8)[1] == 0


def small_network():
    network = SongUNet(
        img_resolution=32, in_channels=1, out_channels=1, model_channels=8,
        channel_mult=[1, 1], num_blocks=1, attn_resolutions=[],
    )  # fmt: skip
    return network.eval()


def test_changes_the_named_weights_in_place_and_nothing_else():
    network = small_network()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    done = Quantize(bits=3)(network)
    changed = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    for name in changed:
        assert "weight" in name
        assert not any(part in name for part in ("norm", "affine", "map", "32"))
    assert any("16x16" in name for name in changed)
    selected = [name for name in before if Quantize(bits=3).selects(name)]
    assert done == f"{len(selected)} weight tensors at 3 bits"


def test_names_are_an_argument():
    network = small_network()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    Quantize(bits=3, include="32x32_conv.weight", exclude=[])(network)
    changed = [n for n, p in network.named_parameters() if not torch.equal(p, before[n])]
    assert changed == ["enc.32x32_conv.weight"]


def test_a_rule_that_selects_nothing_is_a_mistake():
    with pytest.raises(UsageError, match="no parameter name of Linear"):
        Quantize(bits=8, include="kernel")(nn.Linear(2, 2))


def test_unchanged_does_nothing():
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    assert Unchanged()(layer) == ""
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("bits", [0, 1, 17])
def test_impossible_bits_are_refused(bits):
    with pytest.raises(ValueError, match="bits is"):
        Quantize(bits=bits)
