"""Loss weights: limits and values."""

import math

import pytest
import torch

from flowexp.objectives.weightings import (
    EDM,
    SNR,
    LikelihoodOfNoise,
    MinSNR,
    Uniform,
    VelocityOfNoise,
)
from flowexp.paths import VE, VP, Linear

F64 = torch.float64
T = torch.linspace(0.05, 0.95, 19, dtype=F64)


def test_min_snr_limits():
    c = Linear().coefficients(T)
    snr = ((1 - T) / T) ** 2
    assert torch.equal(MinSNR(gamma=1e9)(c), SNR()(c))
    torch.testing.assert_close(SNR()(c), snr)
    assert torch.equal(MinSNR(gamma=1e-9)(c), torch.full_like(T, 1e-9))
    five = MinSNR(gamma=5.0)(c)
    torch.testing.assert_close(five, torch.minimum(snr, torch.tensor(5.0, dtype=F64)))
    assert (five == 5.0).any()
    assert (five < 5.0).any()


def test_edm_weight_is_the_published_one_and_finite_at_the_source():
    sigma = torch.tensor([0.002, 0.5, 80.0], dtype=F64)
    published = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    torch.testing.assert_close(EDM(sigma_data=0.5)(VE().coefficients(sigma)), published)
    assert EDM(sigma_data=0.5)(Linear().coefficients(torch.ones(1, dtype=F64))).item() == 4.0


def test_sit_weights_on_the_linear_path_and_vp():
    c = Linear().coefficients(T)
    torch.testing.assert_close(VelocityOfNoise()(c), (1 / (1 - T)) ** 2)
    torch.testing.assert_close(LikelihoodOfNoise()(c), 1 / (T * (1 - T)))
    # on VP, rho = sigma W / alpha = beta / 2
    c = VP().coefficients(T)
    beta = 0.1 + 19.9 * T
    torch.testing.assert_close(LikelihoodOfNoise()(c) * c.sigma**2, beta / 2)
    assert torch.equal(Uniform()(c), torch.ones_like(T))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_impossible_arguments_are_named(bad):
    with pytest.raises(ValueError, match="gamma"):
        MinSNR(gamma=bad)
    with pytest.raises(ValueError, match="sigma_data"):
        EDM(sigma_data=bad)
