"""The learned log-variance of noise levels: its minimum, the plain loss, and a resumed training."""

import pytest
import torch
from torch import nn

from flowexp.couplings import Pairs
from flowexp.models import FlowModel
from flowexp.networks import EDM2UNet
from flowexp.objectives import (
    LogVariance,
    Regression,
    SquaredL2,
    UncertaintyRegression,
    weightings,
)
from flowexp.parameterizations import EDMPreconditioning
from flowexp.paths import VE, Linear, Path
from flowexp.runs import read_checkpoint
from flowexp.seeding import generator
from flowexp.timesteps import LogNormal
from tests.objectives.models import tiny_model
from tests.training.tiny import tiny_settings, train

PARTS = {"weighting": weightings.EDM(), "premetric": SquaredL2()}


class Given(LogVariance):
    """u at every time, as it is given."""

    def __init__(self, values):
        super().__init__(channels=1)
        self.values = nn.Parameter(values)

    def forward(self, c):
        return self.values


def rows(weight=None):
    rng = generator(0, "pairs")
    x, e = (torch.randn(8, 2, 3, generator=rng) for _ in range(2))
    return Pairs(0.5 * x, e, {}, weight=weight), torch.logspace(-2, 1.5, 8, dtype=torch.float64)


def losses(objective, pairs, t):
    model = tiny_model(Path(VE()), EDMPreconditioning())
    return objective.loss(model, pairs, t, rng=generator(0, "loss"))


def test_with_a_log_variance_of_zero_it_is_the_loss_of_denoising():
    pairs, t = rows(weight=torch.linspace(0.5, 2.0, 8))
    zero = Given(torch.zeros(8, dtype=torch.float64))
    found = losses(UncertaintyRegression("data", **PARTS, log_variance=zero), pairs, t)
    expected = losses(Regression("data", **PARTS), pairs, t).per_sample
    assert torch.equal(found.per_sample, expected)


def test_its_gradient_vanishes_where_u_is_the_logarithm_of_the_error():
    pairs, t = rows()
    error = losses(Regression("data", **PARTS), pairs, t).per_sample.detach().double()
    for offset in (0.0, 0.5):
        u = Given(error.log() + offset)
        found = losses(UncertaintyRegression("data", **PARTS, log_variance=u), pairs, t)
        found.per_sample.sum().backward()
        expected = torch.full((8,), -torch.expm1(torch.tensor(-offset)).item())
        torch.testing.assert_close(u.values.grad.float(), expected, rtol=1e-4, atol=1e-5)
        mean = error.mean().float()
        torch.testing.assert_close(found.metrics["error"], mean, rtol=1e-5, atol=0)


def test_pure_data_and_pure_source_have_a_log_variance():
    schedule = Linear()
    u = LogVariance()(schedule.coefficients(torch.tensor([0.0, 1e-8, 0.5, 1.0])))
    assert u.isfinite().all()
    assert u.abs().max() < 256**0.5


def test_it_needs_features():
    with pytest.raises(ValueError, match="channels is 0; expected an integer >= 1"):
        LogVariance(channels=0)


def trained(folder, *, max_kimg):
    """The checkpoint of a small EDM2 training, which continues what is in the folder."""
    torch.manual_seed(0)
    network = EDM2UNet(
        img_resolution=4, in_channels=1, out_channels=1, model_channels=4, channel_mult=(1, 2),
        num_blocks=1, dropout=0.1, label_dim=3,
    )  # fmt: skip
    model = FlowModel(Path(VE()), network=network, parameterization=EDMPreconditioning())
    objective = UncertaintyRegression("data", **PARTS, log_variance=LogVariance(channels=8))
    settings = tiny_settings(max_kimg=max_kimg)
    law = LogNormal(P_mean=-0.8, P_std=1.6)
    result = train(folder, model=model, settings=settings, objective=objective, timestep=law)
    return read_checkpoint(result.checkpoint)


def test_a_continued_training_of_a_normalised_network_ends_with_the_same_weights(tmp_path):
    """Forced weight normalisation and u included; both have moved, and no row has grown."""
    whole = trained(tmp_path / "whole", max_kimg=0.128)
    first = trained(tmp_path / "parts", max_kimg=0.064)
    parts = trained(tmp_path / "parts", max_kimg=0.128)
    for name in ("objective", "network"):
        assert whole[name].keys() == parts[name].keys()
        assert all(torch.equal(whole[name][key], parts[name][key]) for key in whole[name])
        assert any(not torch.equal(first[name][key], parts[name][key]) for key in first[name])
    kernels = [*whole["network"].items(), *whole["objective"].items()]
    for name, weight in kernels:
        if weight.ndim > 1:
            magnitude = weight.flatten(1).square().mean(1).sqrt()
            # one step of Adam after the normalisation
            torch.testing.assert_close(
                magnitude, torch.ones_like(magnitude), rtol=0, atol=0.05, msg=name
            )
