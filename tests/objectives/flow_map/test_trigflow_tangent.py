"""The tangent of continuous-time consistency models: closed forms, limits, warm-up, guidance."""

import pytest
import torch
from torch import nn

from flowexp.broadcast import expand_as
from flowexp.couplings import Pairs
from flowexp.models import FlowModel, Model
from flowexp.networks.unet import UNet
from flowexp.objectives import FlowMapMatching, SquaredL2, SquaredL2PerDimension
from flowexp.objectives.flow_map import (
    CentralDifference,
    Clipped,
    DataVelocity,
    LearnedLogVariance,
    Legs,
    Normalized,
    OnlineTarget,
    TeacherVelocity,
    TrigFlowOutput,
    TrigFlowTangent,
)
from flowexp.objectives.weightings import InverseNoise
from flowexp.parameterizations import DDIMJump, EDMPreconditioning, FlowMap, QuarterCircle, TrigFlow
from flowexp.paths import VE, VP, Linear, Path, Prediction, Trigonometric
from flowexp.requirements import Parts

F64 = torch.float64
SCHEDULES = [VE(), Linear(), Trigonometric()]


class GaussianConsistency(Model):
    """The exact consistency function for data N(0, sd^2): ``f = x_theta``, since v_theta = 0."""

    is_flow_map = maps_to_data_only = True

    def __init__(self, schedule, sigma_data=0.5):
        self.path, self.sigma_data = Path(schedule), sigma_data
        self.time_range = (schedule.t_min, schedule.t_max)

    def predict(self, x_t, t, **conditions):
        circle = QuarterCircle(self.path.schedule.coefficients(t), self.sigma_data)
        return Prediction.of_data(self.path, x_t, t, circle.state(x_t))

    def average_velocity(self, x_t, t, r, **conditions):
        return (x_t - self.predict(x_t, t).data) / expand_as(t, x_t)


class GaussianFlow(GaussianConsistency):
    """The exact denoiser for the same data: ``D = cos x_theta``."""

    def predict(self, x_t, t, **conditions):
        circle = QuarterCircle(self.path.schedule.coefficients(t), self.sigma_data)
        data = expand_as(circle.cos, x_t) * circle.state(x_t)
        return Prediction.of_data(self.path, x_t, t, data)


def objective(leg, driver=None):
    return FlowMapMatching(
        driver=driver or DataVelocity(),
        leg=leg,
        premetric=SquaredL2(),
        regressed=TrigFlowOutput(),
    )


def batch(schedule, *, images_seen=0, shape=(1, 4, 4)):
    rng = torch.Generator().manual_seed(0)
    nsr = torch.tensor([0.01, 0.1, 0.4, 1.0, 8.0, 60.0], dtype=F64)
    x, e = torch.randn(2, len(nsr), *shape, generator=rng, dtype=F64)
    pairs = Pairs(x=0.5 * x, e=e, conditions={}, images_seen=images_seen)
    return pairs, schedule.time_at_nsr(nsr)


def tangent_of(matching, model, pairs, t):
    leap = matching.leap(model, pairs, t, rng=torch.Generator())
    legs = Legs(matching.driver, OnlineTarget(), matching.diagonal)
    return leap, matching.leg.tangent(model, leap, legs)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_distillation_of_gaussian_data_has_no_tangent_at_the_exact_function(schedule):
    driver = TeacherVelocity(teacher=GaussianFlow(schedule))
    matching = objective(TrigFlowTangent(), driver)
    pairs, t = batch(schedule)
    _, g = tangent_of(matching, GaussianConsistency(schedule), pairs, t)
    assert g.abs().max() < 1e-9
    loss = matching.loss(GaussianConsistency(schedule), pairs, t, rng=torch.Generator())
    assert loss.per_sample.max() < 1e-12


def test_training_on_gaussian_data_has_a_tangent_of_mean_zero_there():
    """|mean of g| below 5 standard errors in all of 6 x 16 entries: a false alarm in 17,000."""
    schedule, rng = VE(), torch.Generator().manual_seed(3)
    t = torch.tensor([0.05, 0.3, 0.7, 2.0, 10.0, 80.0], dtype=F64).repeat_interleave(4000)
    x, e = torch.randn(2, len(t), 2, generator=rng, dtype=F64)
    matching = objective(TrigFlowTangent())
    pairs = Pairs(x=0.5 * x, e=e, conditions={})
    leap, g = tangent_of(matching, GaussianConsistency(schedule), pairs, t)
    # Given x_t the mean is 0, so g is uncorrelated with every function of x_t.
    state = QuarterCircle(schedule.coefficients(t), 0.5).state(leap.x_t)
    product = (g * state).reshape(6, -1)
    error = product.std(1) / product.shape[1] ** 0.5
    assert bool((product.mean(1).abs() < 5.0 * error).all())
    assert bool((product.std(1) > 0.0).all())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_without_its_derivative_it_is_the_direction_of_flow_matching(schedule):
    matching = objective(TrigFlowTangent(warmup_kimg=1.0))
    pairs, t = batch(schedule)
    model = GaussianConsistency(schedule)
    leap, g = tangent_of(matching, model, pairs, t)
    circle = QuarterCircle(schedule.coefficients(t), 0.5)
    F = circle.output(leap.x_t, model.denoise(leap.x_t, t))
    velocity = circle.velocity(leap.x_t, leap.velocity)
    torch.testing.assert_close(g, -expand_as(circle.cos**2, F) * (0.5 * F - velocity))


def test_the_derivative_counts_fully_after_the_warm_up():
    leg = TrigFlowTangent(warmup_kimg=2.0)
    assert [leg.share(n) for n in (0, 500, 2000, 9000)] == [0.0, 0.25, 1.0, 1.0]
    assert TrigFlowTangent().share(0) == 1.0
    whole, half, none = (
        tangent_of(objective(leg), GaussianConsistency(VE()), *batch(VE(), images_seen=n))[1]
        for n in (2000, 1000, 0)
    )
    torch.testing.assert_close(half, 0.5 * (whole + none))


def test_limits_of_the_tangent():
    g = torch.randn(8, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    g = g * torch.logspace(-3, 6, 8, dtype=F64)[:, None, None, None]
    rms = Normalized()(g).flatten(1).square().mean(1).sqrt()
    assert bool((rms < 1.0).all())
    torch.testing.assert_close(rms[-1], torch.tensor(1.0, dtype=F64), rtol=1e-5, atol=0)
    torch.testing.assert_close(Normalized()(1e-9 * g), 1e-8 * g, rtol=0.02, atol=0)
    norm = Normalized(per_dimension=False)(g).flatten(1).norm(dim=1)
    assert bool((norm < 1.0).all())
    clipped = Clipped(bound=0.5)(g)
    assert clipped.abs().max() == 0.5
    small = g.abs() < 0.5
    assert torch.equal(clipped[small], g[small])


def network():
    torch.manual_seed(0)
    net = UNet(in_channels=1, out_channels=1, img_resolution=8, model_channels=4).eval()
    nn.init.normal_(net.head.conv1.weight, std=0.3)
    return net


def test_the_tangent_of_a_network_is_the_same_on_every_path():
    found = []
    for schedule in (VE(), VP(), Linear(), Trigonometric()):
        rule = FlowMap(of=TrigFlow(), jump=DDIMJump(), conditions_on=[])
        model = FlowModel(Path(schedule), network=network(), parameterization=rule)
        with torch.no_grad():
            found.append(
                tangent_of(objective(TrigFlowTangent()), model, *batch(schedule, shape=(1, 8, 8)))
            )
    for _, g in found[1:]:
        torch.testing.assert_close(g, found[0][1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("rule", [TrigFlow(), EDMPreconditioning()], ids=lambda r: type(r).__name__)
def test_difference_and_forward_mode_agree_on_a_network(rule):
    rule = FlowMap(of=rule, jump=DDIMJump(), conditions_on=[])
    model = FlowModel(Path(VE()), network=network(), parameterization=rule)
    pairs, t = batch(VE(), shape=(1, 8, 8))
    with torch.no_grad():
        exact, difference = (
            tangent_of(objective(TrigFlowTangent(derivative=d)), model, pairs, t)[1]
            for d in (None, CentralDifference(step=1e-2))
        )
    torch.testing.assert_close(difference, exact, rtol=0, atol=2e-3)
    assert exact.abs().mean() > 0.05


def test_only_the_prediction_has_a_gradient_and_it_is_that_of_the_output():
    """d loss / dF = -2 g / N."""
    torch.manual_seed(0)
    net = UNet(in_channels=1, out_channels=1, img_resolution=8, model_channels=4)
    rule = FlowMap(of=TrigFlow(), jump=DDIMJump(), conditions_on=[])
    model = FlowModel(Path(VE()), network=net, parameterization=rule)
    matching = objective(TrigFlowTangent())
    pairs, t = batch(VE(), shape=(1, 8, 8))
    loss = matching.loss(model, pairs, t, rng=torch.Generator()).per_sample.sum()
    bias = next(p for name, p in net.named_parameters() if name == "head.conv1.bias")
    found = torch.autograd.grad(loss, bias)[0]
    _, g = tangent_of(matching, model, pairs, t)
    g = matching.leg.limit(g.detach())
    # The network gives F itself, and the bias adds to every pixel.
    torch.testing.assert_close(found.double(), (-2.0 * g / 64).sum()[None], rtol=1e-4, atol=1e-5)


class Labelled(Model):
    """A velocity field that is its label."""

    def __init__(self, path):
        self.path, self.time_range = path, (0.0, 1.0)

    def predict(self, x_t, t, *, labels, **conditions):
        velocity = torch.ones_like(x_t) * expand_as(labels.to(F64), x_t)
        return Prediction.of_velocity(self.path, x_t, t, velocity)


def test_a_teacher_is_guided_by_the_difference_to_no_label():
    path = Path(Linear())
    pairs, t = batch(Linear(), shape=(2,))
    pairs = Pairs(x=pairs.x, e=pairs.e, conditions={"labels": torch.arange(6)})
    for scale, expected in ((1.0, torch.arange(6.0)), (3.0, 3.0 * torch.arange(6.0) + 2.0)):
        driver = TeacherVelocity(teacher=Labelled(path), guidance_scale=scale)
        matching = objective(TrigFlowTangent(), driver)
        leap = matching.leap(GaussianConsistency(Linear()), pairs, t, rng=torch.Generator())
        velocity = driver.velocity(Labelled(path), leap, t)
        torch.testing.assert_close(velocity[:, 0], expected.double())


def test_guidance_warns_of_a_teacher_that_never_saw_no_label():
    teacher = Labelled(Path(Linear()))
    for dropped, scale, warned in ((False, 2.0, 1), (False, 1.0, 0), (True, 2.0, 0)):
        teacher.labels_dropped = dropped
        driver = TeacherVelocity(teacher=teacher, guidance_scale=scale)
        unmet = list(driver.needs(Parts(path=teacher.path)))
        assert len(unmet) == warned
        assert not any(u.refuses for u in unmet)


def test_the_log_variance_learns_the_size_of_the_errors():
    torch.manual_seed(0)
    weight = LearnedLogVariance(channels=16, prior=InverseNoise())
    matching = objective(TrigFlowTangent())
    pairs, t = batch(Linear())
    leap = matching.leap(GaussianConsistency(Linear()), pairs, t, rng=torch.Generator())
    error = torch.tensor([0.1, 0.2, 0.4, 0.8, 1.6, 3.2], dtype=F64)
    prior = (1.0 - t) / t
    first = weight(error, leap, None)
    torch.testing.assert_close(first.detach(), prior * error)
    optimizer = torch.optim.LBFGS(weight.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = weight(error, leap, None).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    w = weight.log_variance(leap.t, leap.r).detach().double()
    torch.testing.assert_close(w, torch.log(prior * error), rtol=0, atol=0.05)


def test_the_mean_square_per_dimension_only_moves_the_log_variance():
    d = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(SquaredL2PerDimension()(d), SquaredL2()(d) / 10.0)


def test_a_parameterization_without_flow_map_is_refused_with_the_one_that_suits():
    matching = objective(TrigFlowTangent())
    unmet = list(matching.needs(Parts(parameterization=TrigFlow())))
    assert any("parameterization=trigflow_consistency" in u.remedy for u in unmet)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: TrigFlowTangent(sigma_data=0.0), "sigma_data"),
        (lambda: TrigFlowTangent(warmup_kimg=-1.0), "warmup_kimg"),
        (lambda: TrigFlowOutput(sigma_data=-1.0), "sigma_data"),
        (lambda: Normalized(c=0.0), "c is"),
        (lambda: Clipped(bound=0.0), "bound"),
    ],
)
def test_wrong_numbers_are_refused(make, name):
    with pytest.raises(ValueError, match=name):
        make()
