"""Regression: EDM's loss as a special case, equivalence of targets, accuracy, gradients."""

import math

import pytest
import torch

from flowexp.couplings import Pairs
from flowexp.objectives import PseudoHuber, Regression, SquaredL2, weightings
from flowexp.parameterizations import EDMPreconditioning, NoisePrediction, VelocityPrediction
from flowexp.paths import VE, VP, Linear, Path, Trigonometric
from flowexp.seeding import generator
from tests.objectives.models import Fixed, TinyNetwork, tiny_model

F64 = torch.float64
EDM_LOSS = Regression("data", weighting=weightings.EDM(), premetric=SquaredL2())
FLOW_MATCHING = Regression("velocity", weighting=weightings.Uniform(), premetric=SquaredL2())
NOISE_LOSS = Regression("noise", weighting=weightings.Uniform(), premetric=SquaredL2())


def pairs(n=8, weight=None, seed=0):
    rng = generator(seed, "pairs")
    x = 0.5 * torch.randn(n, 2, 3, generator=rng)
    return Pairs(x=x, e=torch.randn(n, 2, 3, generator=rng), conditions={}, weight=weight)


def loss(objective, model, batch, t):
    return objective.loss(model, batch, t, rng=generator(0, "loss")).per_sample


def test_edm_loss_written_out():
    """weight (s^2 + sd^2) / (s sd)^2 times (D(x + s e; s) - x)^2, mean over dimensions."""
    batch, sigma, sd = pairs(), torch.logspace(-2, 1.5, 8, dtype=F64), 0.5
    network = TinyNetwork()
    s = sigma[:, None, None].float()
    x_t = batch.x + s * batch.e
    raw = network(x_t / (s**2 + sd**2).sqrt(), sigma.log().float() / 4)
    denoised = sd**2 / (s**2 + sd**2) * x_t + s * sd / (s**2 + sd**2).sqrt() * raw
    expected = (s**2 + sd**2) / (s * sd) ** 2 * (denoised - batch.x) ** 2
    model = tiny_model(Path(VE()), EDMPreconditioning())
    ours = loss(EDM_LOSS, model, batch, sigma)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected.flatten(1).mean(1), rtol=2e-4, atol=0)


@pytest.mark.parametrize("schedule", [Linear(), VP(), Trigonometric()])
def test_edm_loss_is_the_same_on_every_path_at_equal_nsr(schedule):
    batch, nsr = pairs(), torch.logspace(-2, 1.5, 8, dtype=F64)
    on_ve = loss(EDM_LOSS, tiny_model(Path(VE()), EDMPreconditioning()), batch, nsr)
    model = tiny_model(Path(schedule), EDMPreconditioning())
    here = loss(EDM_LOSS, model, batch, schedule.time_at_nsr(nsr))
    torch.testing.assert_close(here, on_ve, rtol=1e-5, atol=0)


@pytest.mark.parametrize("schedule", [Linear(), VE(), VP(), Trigonometric()])
def test_edm_weight_times_c_out_squared_is_one(schedule):
    t = schedule.time_at_nsr(torch.logspace(-3, 2, 30, dtype=F64))
    c = schedule.coefficients(t)
    c_out = EDMPreconditioning().conversion(c).data.output
    torch.testing.assert_close(weightings.EDM()(c) * c_out**2, torch.ones_like(t))


@pytest.mark.parametrize("nsr", [1e-9, 1e-6, 1e6])
def test_edm_loss_is_exact_at_extreme_noise_levels(nsr):
    """In float32, (D - x)^2 / c_out^2 would be rounding error below nsr = 1e-6."""
    batch = pairs()
    schedule = Linear()
    t = schedule.time_at_nsr(torch.full((8,), nsr, dtype=F64))
    model = tiny_model(Path(schedule), EDMPreconditioning())
    c, x, e = schedule.coefficients(t), batch.x.double(), batch.e.double()
    alpha, sigma = c.alpha[0], c.sigma[0]
    root = torch.sqrt(alpha**2 * 0.25 + sigma**2)
    target = (sigma / 0.5 * x - alpha * 0.5 * e) / root
    raw = model.network(
        ((alpha * x + sigma * e) / root).float(), torch.full((8,), math.log(nsr) / 4)
    )
    expected = (raw - target).square().flatten(1).mean(1).float()
    torch.testing.assert_close(loss(EDM_LOSS, model, batch, t), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("schedule", [Linear(), VP(), Trigonometric()])
def test_equivalent_targets_and_weights(schedule):
    """The errors of the targets differ by known factors: SNR, and SiT's velocity weight."""
    batch, t = pairs(), torch.linspace(0.1, 0.9, 8, dtype=F64)
    model = tiny_model(Path(schedule), NoisePrediction())

    def with_weight(target, weighting):
        objective = Regression(target, weighting=weighting, premetric=SquaredL2())
        return loss(objective, model, batch, t)

    noise = with_weight("noise", weightings.Uniform())
    torch.testing.assert_close(with_weight("data", weightings.SNR()), noise, rtol=1e-5, atol=0)
    velocity = with_weight("velocity", weightings.Uniform())
    as_velocity = with_weight("noise", weightings.VelocityOfNoise())
    torch.testing.assert_close(as_velocity, velocity, rtol=1e-5, atol=0)


@pytest.mark.parametrize("target", ["velocity", "data", "noise"])
def test_perfect_prediction_has_no_loss_and_an_offset_has_its_square(target):
    batch, t, path = pairs(), torch.linspace(0.1, 0.9, 8, dtype=F64), Path(Linear())
    truth = getattr(path.point(batch.x.double(), batch.e.double(), t), target)
    objective = Regression(target, weighting=weightings.Uniform(), premetric=SquaredL2())
    assert loss(objective, Fixed(path, target, truth), batch, t).max() < 1e-20
    off = loss(objective, Fixed(path, target, truth + 0.1), batch, t)
    torch.testing.assert_close(off, torch.full((8,), 0.01), rtol=1e-6, atol=0)


def test_weight_of_the_pairs_multiplies():
    weight = torch.linspace(0.0, 2.0, 8)
    t = torch.linspace(0.1, 0.9, 8, dtype=F64)
    model = tiny_model(Path(Linear()), VelocityPrediction())
    plain = loss(FLOW_MATCHING, model, pairs(), t)
    torch.testing.assert_close(loss(FLOW_MATCHING, model, pairs(weight=weight), t), weight * plain)


@pytest.mark.parametrize("objective", [EDM_LOSS, FLOW_MATCHING, NOISE_LOSS])
def test_gradient_equals_finite_difference(objective):
    batch, t = pairs(), torch.linspace(0.2, 0.8, 8, dtype=F64)
    model = tiny_model(Path(Linear()), EDMPreconditioning())
    parameter = model.network.second
    loss(objective, model, batch, t).mean().backward()
    direction = torch.randn(parameter.shape, generator=generator(1, "direction"))
    slope = (parameter.grad * direction).sum()
    values = []
    with torch.no_grad():
        for h in (1e-2, -2e-2):
            parameter += h * direction
            values.append(loss(objective, model, batch, t).double().mean())
    # The losses are quadratic in the last layer, so the central difference is exact.
    difference = (values[0] - values[1]) / 2e-2
    torch.testing.assert_close(slope.double(), difference, rtol=2e-4, atol=1e-5)


def test_conditions_reach_the_model():
    class Recorder(Fixed):
        def predict(self, x_t, t, **conditions):
            self.seen = conditions
            return super().predict(x_t, t, **conditions)

    batch = pairs()
    model = Recorder(Path(Linear()), "velocity", batch.e - batch.x)
    labelled = Pairs(x=batch.x, e=batch.e, conditions={"labels": torch.arange(8), "mask": None})
    loss(FLOW_MATCHING, model, labelled, torch.full((8,), 0.5))
    assert model.seen["labels"] is labelled.conditions["labels"]
    assert model.seen["mask"] is None


@pytest.mark.statistical
def test_two_point_regression_reaches_the_closed_form():
    """Flow matching with a t source on two points in 2-D: the optimum is PFGM++'s denoiser.

    The best prediction of x over a cell of states is the mean of x over the pairs that fall there;
    it must equal the mean of the kernel-weighted average of the two points within 2 %. A cell holds
    more than 30,000 pairs, so 0.02 is more than 3.5 standard errors: false alarm 5e-4 per cell.
    """
    points, D, sigma, n = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 1.0, 0.8, 1_000_000
    path, rng = Path(VE(), D=D), generator(0, "two points")
    x = points[torch.randint(2, (n,), generator=rng)]
    e = path.source.sample((n, 2), rng=rng)
    x_t = path.point(x, e, torch.full((n,), sigma)).x_t
    for centre in ([0.8, 0.7], [1.5, -0.5], [-1.2, 0.5]):
        cell = (x_t - torch.tensor(centre)).abs().max(1).values < 0.4
        assert cell.sum() > 30_000
        square = (x_t[cell][:, None] - points).square().sum(-1)
        kernel = (square + D * sigma**2) ** (-(2 + D) / 2)
        closed = (kernel / kernel.sum(1, keepdim=True)) @ points
        assert abs(x[cell, 0].mean() - closed[:, 0].mean()) < 0.02
        gaussian = torch.softmax(-square / (2 * sigma**2), dim=1) @ points
        assert abs(x[cell, 0].mean() - gaussian[:, 0].mean()) > 0.02


def test_pseudo_huber_is_accepted_and_unknown_target_refused():
    objective = Regression("velocity", weighting=weightings.Uniform(), premetric=PseudoHuber())
    t = torch.linspace(0.1, 0.9, 8, dtype=F64)
    model = tiny_model(Path(Linear()), VelocityPrediction())
    assert (loss(objective, model, pairs(), t) > 0).all()
    with pytest.raises(ValueError, match=r"'score'.*velocity.*data.*noise"):
        Regression("score", weighting=weightings.Uniform(), premetric=SquaredL2())
