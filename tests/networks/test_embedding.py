"""Noise embeddings against their formulas."""

import math

import pytest
import torch

from flowexp.networks.embedding import (
    ConditionEmbedding,
    FourierEmbedding,
    MultiScaleEmbedding,
    PositionalEmbedding,
)


@pytest.mark.parametrize("endpoint", [True, False])
def test_positional_is_cos_then_sin_of_geometric_frequencies(endpoint):
    c = torch.tensor([0.25, 999.0])
    out = PositionalEmbedding(8, endpoint=endpoint)(c)
    freqs = [10000.0 ** (-i / (3 if endpoint else 4)) for i in range(4)]
    for row, value in zip(out, c.tolist(), strict=True):
        expected = [math.cos(value * f) for f in freqs] + [math.sin(value * f) for f in freqs]
        torch.testing.assert_close(row, torch.tensor(expected), rtol=0, atol=2e-4)


def test_fourier_uses_its_stored_frequencies():
    embedding = FourierEmbedding(6, scale=2.0)
    out = embedding(torch.tensor([0.3]))[0]
    phase = 2 * math.pi * 0.3 * embedding.freqs
    torch.testing.assert_close(out, torch.cat([phase.cos(), phase.sin()]))
    assert list(embedding.state_dict()) == ["freqs"]


@pytest.mark.parametrize(("low", "high"), [(-1.6, 1.1), (0.0, 1.0), (0.0, 1000.0)])
def test_multi_scale_resolves_every_range_of_c_noise(low, high):
    # 50 steps over the range: neighbours differ clearly, and no two values look alike.
    out = MultiScaleEmbedding(64)(torch.linspace(low, high, 51))
    distance = torch.cdist(out, out) + 10 * torch.eye(51)
    assert distance.min() > 0.15


@pytest.mark.parametrize("make", [PositionalEmbedding, FourierEmbedding, MultiScaleEmbedding])
def test_phases_stay_float32_under_autocast_and_for_half_inputs(make):
    embedding = make(16)
    c = torch.tensor([512.5])
    expected = embedding(c)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(embedding(c), expected, rtol=0, atol=0)
    assert embedding(c.half()).dtype == torch.float32
    torch.testing.assert_close(embedding(c.double()).float(), expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("make", [PositionalEmbedding, FourierEmbedding, MultiScaleEmbedding])
def test_odd_length_is_refused(make):
    with pytest.raises(ValueError, match="num_channels=7"):
        make(7)


def test_condition_embedding_adds_its_parts_before_the_nonlinearity():
    embedding = ConditionEmbedding(8, noise_channels=16, label_dim=4, augment_dim=2)
    c, label, augment = torch.randn(3), torch.eye(4)[:3], torch.randn(3, 2)
    h = embedding.noise(embedding.waves(c)) + 2 * label @ embedding.label.weight.T
    h = h + augment @ embedding.augment.weight.T
    expected = torch.nn.functional.silu(embedding.out(torch.nn.functional.silu(h)))
    torch.testing.assert_close(embedding(c, label, augment), expected)
