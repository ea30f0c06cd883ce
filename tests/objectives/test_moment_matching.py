"""IMM: its kernel and weight in closed form, and the law of its loss on Gaussian data."""

import math

import pytest
import torch

from flowexp.couplings import Pairs
from flowexp.errors import UsageError
from flowexp.models import FlowModel
from flowexp.objectives import LaplaceKernel, MomentMatching
from flowexp.objectives.moment_matching import mean_discrepancy
from flowexp.objectives.weightings import SigmoidOfSNR
from flowexp.parameterizations import (
    DataPrediction,
    DDIMJump,
    EDMPreconditioning,
    EulerJump,
    FlowMap,
    VelocityPrediction,
)
from flowexp.paths import Linear, Path, ScaledNoise, Trigonometric
from flowexp.timesteps import Sorted, Uniform
from flowexp.training import TrainerSettings
from flowexp.training.module import micro_batches
from tests.objectives.flow_map.exact import GaussianMap as ExactGaussian
from tests.objectives.models import TinyNetwork
from tests.refusals import refusal_of

SD = 0.5
TIMES = (0.8, 0.3, 0.75)
"""t, r and s."""


def times_of(rows, times=TIMES):
    return torch.tensor(times, dtype=torch.float64).expand(rows, 3).clone()


def drawn(rows, dims=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x, e = (torch.randn(rows, dims, generator=rng, dtype=torch.float64) for _ in range(2))
    return Pairs(x=SD * x, e=e, conditions={})


class Conditioned(TinyNetwork):
    """A small network that is conditioned on r too."""

    scalars = ("end",)

    def forward(self, x, c_noise, scalars=None, **conditions):
        flat = torch.cat(
            [x.flatten(1), c_noise[:, None] + scalars["end"].to(x).expand(len(x))[:, None]], dim=1
        )
        return (torch.tanh(flat @ self.first) @ self.second).reshape(x.shape)


def model_of(schedule, of, jump, features=3):
    network = Conditioned(features=features)
    rule = FlowMap(of=of, jump=jump, conditions_on=["end"])
    return FlowModel(Path(schedule), network=network, parameterization=rule)


class GaussianMap(ExactGaussian):
    """The exact flow map of N(0, SD^2) data on the linear path, times a number that is trained."""

    def __init__(self):
        super().__init__(Path(Linear()), std=SD)
        self.gain = torch.ones((), dtype=torch.float64, requires_grad=True)

    def flow_map(self, x_t, t, r, **conditions):
        return self.gain * super().flow_map(x_t, t, r)


def interpolated(schedule, x_t, x, s, t):
    """DDIM's interpolation from x_t at t to the data x, at s."""
    a, b = (schedule.coefficients(time) for time in (s, t))
    ratio = a.sigma / b.sigma
    return (a.alpha - b.alpha * ratio) * x + ratio * x_t


@pytest.mark.parametrize("schedule", [Linear(), ScaledNoise(of=Trigonometric(), noise=SD)])
def test_the_nearer_state_is_the_interpolation_of_the_farther(schedule):
    pairs, path = drawn(5), Path(schedule)
    t, r, s = (torch.tensor(v, dtype=torch.float64) for v in TIMES)
    far, near = (path.point(pairs.x, pairs.e, v.expand(5)).x_t for v in (t, s))
    torch.testing.assert_close(interpolated(schedule, far, pairs.x, s, t), near, atol=1e-12, rtol=0)
    twice = interpolated(schedule, near, pairs.x, r, s)
    once = interpolated(schedule, far, pairs.x, r, t)
    torch.testing.assert_close(twice, once, atol=1e-12, rtol=0)
    zero = torch.zeros_like(t)
    torch.testing.assert_close(interpolated(schedule, far, pairs.x, zero, t), pairs.x)


@pytest.mark.parametrize("trigonometric", [False, True])
def test_simple_edm_has_its_published_scalings(trigonometric):
    """With ``sigma = sd sigma'``: c_skip and c_out of lumalabs/imm, with F of the other sign."""
    plain = Trigonometric() if trigonometric else Linear()
    schedule = ScaledNoise(of=plain, noise=SD)
    t, r = (torch.linspace(a, b, 5, dtype=torch.float64) for a, b in ((0.3, 0.95), (0.1, 0.9)))
    conversion = EDMPreconditioning(sigma_data=SD).conversion(schedule.coefficients(t))
    u = DDIMJump().average_velocity(conversion, schedule, t, r)
    c, d = plain.coefficients(t), plain.coefficients(r)
    norm = torch.sqrt(c.alpha**2 + c.sigma**2)
    c_skip = (c.alpha * d.alpha + c.sigma * d.sigma) / norm**2
    c_out = -(d.alpha * c.sigma - c.alpha * d.sigma) * SD / norm
    if trigonometric:
        angle = (t - r) * math.pi / 2
        torch.testing.assert_close(c_skip, torch.cos(angle))
        torch.testing.assert_close(c_out, -SD * torch.sin(angle))
    torch.testing.assert_close(1.0 - (t - r) * u.state, c_skip, atol=1e-12, rtol=0)
    torch.testing.assert_close(-(t - r) * u.output, -c_out, atol=1e-12, rtol=0)
    model = model_of(schedule, EDMPreconditioning(sigma_data=SD), DDIMJump())
    reach = (t - r) * model.output_scale(t, r)
    torch.testing.assert_close(reach, -c_out, atol=1e-12, rtol=0)
    inputs = EDMPreconditioning(sigma_data=SD, time_scale=1000.0).inputs(
        schedule, t, schedule.coefficients(t)
    )
    torch.testing.assert_close(inputs.c_in, 1.0 / (SD * norm))
    torch.testing.assert_close(inputs.c_noise, 1000.0 * t)


def test_identity_and_euler_forms():
    t, r = (torch.tensor([v], dtype=torch.float64) for v in (0.8, 0.3))
    schedule, x_t = Linear(), torch.ones(1, 3, dtype=torch.float64)
    identity = model_of(schedule, DataPrediction(), DDIMJump())
    data = identity.flow_map(x_t, t, torch.zeros_like(t))
    scalars = {"end": torch.zeros(1)}
    expected = identity.network(x_t.float(), t.float(), scalars=scalars).double()
    torch.testing.assert_close(data, expected)
    reach = (t - r) * identity.output_scale(t, r)
    torch.testing.assert_close(reach, torch.tensor([0.7 - 0.2 * 0.3 / 0.8]).double())
    euler = model_of(schedule, VelocityPrediction(), EulerJump())
    torch.testing.assert_close((t - r) * euler.output_scale(t, r), t - r)
    output = euler.network(x_t.float(), t.float(), scalars={"end": r.float()}).double()
    torch.testing.assert_close(euler.flow_map(x_t, t, r), x_t - (t - r)[:, None] * output)


def test_a_prediction_at_one_time_is_that_at_equal_times():
    """A network conditioned on r receives r = t, not 0, as every sampler of the velocity needs."""
    model, x_t = model_of(Linear(), VelocityPrediction(), EulerJump()), torch.ones(2, 3).double()
    times = torch.tensor([0.8, 0.3], dtype=torch.float64)
    together = [evaluate(x_t).velocity for evaluate in model.at(times)]
    for t, prepared in zip(times, together, strict=True):
        expected = model.average_velocity(x_t, t.expand(2), t.expand(2))
        torch.testing.assert_close(model.velocity(x_t, t), expected)
        torch.testing.assert_close(prepared, expected)
        assert not expected.allclose(model.average_velocity(x_t, t.expand(2), t.new_zeros(2)))


def test_the_kernel_is_one_at_no_distance_and_falls_with_the_mean_distance():
    a = torch.zeros(1, 2, 4, dtype=torch.float64)
    b = torch.full((1, 1, 4), 3.0, dtype=torch.float64)
    scale = torch.tensor([0.5], dtype=torch.float64)
    assert LaplaceKernel()(a, a, scale).allclose(torch.ones(1, 2, 2, dtype=torch.float64))
    found = LaplaceKernel()(a, b, scale)
    torch.testing.assert_close(found, torch.full((1, 2, 1), math.exp(-6.0 / (0.5 * 4))).double())


def test_no_gradient_at_no_distance():
    a = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    scale = torch.ones(2, dtype=torch.float64)
    mean_discrepancy(LaplaceKernel(), a, a.detach(), scale).sum().backward()
    assert torch.isfinite(a.grad).all()


def test_it_is_zero_for_the_same_samples_never_negative_and_blind_to_their_order():
    rng = torch.Generator().manual_seed(1)
    a, b = (torch.randn(200, 4, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    scale = torch.full((200,), 0.4, dtype=torch.float64)
    kernel = LaplaceKernel()
    assert mean_discrepancy(kernel, a, a, scale).abs().max() < 1e-14
    found = mean_discrepancy(kernel, a, b, scale)
    assert found.min() >= 0.0
    other = mean_discrepancy(kernel, a[:, [2, 0, 3, 1]], b[:, [1, 3, 2, 0]], scale)
    torch.testing.assert_close(found, other)


def test_one_particle_compares_single_samples():
    model, pairs = GaussianMap(), drawn(6)
    loss = MomentMatching(particles=1).loss(model, pairs, times_of(6), rng=None).per_sample
    t, r, s = times_of(6).unbind(1)
    ends = [model.flow_map(model.path.point(pairs.x, pairs.e, v).x_t, v, r) for v in (t, s)]
    distance = (ends[0] - ends[1]).norm(dim=1) / (3 * (t - r))
    torch.testing.assert_close(loss, (2.0 - 2.0 * torch.exp(-distance)).float())


def test_members_of_a_group_share_the_times_of_the_first():
    model, pairs = GaussianMap(), drawn(8)
    mixed = times_of(8)
    mixed[[1, 2, 3]] = torch.tensor((0.9, 0.1, 0.5), dtype=torch.float64)
    objective = MomentMatching(particles=4)
    found = [objective.loss(model, pairs, t, rng=None).per_sample for t in (mixed, times_of(8))]
    assert torch.equal(*found)
    assert found[0][:4].unique().numel() == found[0][4:].unique().numel() == 1


def test_the_gradient_flows_through_the_longer_jump_only():
    model, pairs = GaussianMap(), drawn(8)
    objective = MomentMatching(particles=4)
    loss = objective.loss(model, pairs, times_of(8), rng=None).per_sample.sum()
    (gradient,) = torch.autograd.grad(loss, [model.gain])

    def value(gain):
        t, r, s = times_of(8).unbind(1)
        ends = [model.flow_map(model.path.point(pairs.x, pairs.e, v).x_t, v, r) for v in (t, s)]
        a, b = (end.detach().unflatten(0, (2, 4)) for end in ends)
        scale = torch.full((2,), TIMES[0] - TIMES[1], dtype=torch.float64)
        return 4.0 * mean_discrepancy(LaplaceKernel(), gain * a, b, scale).sum()

    h = 1e-5
    difference = (value(1.0 + h) - value(1.0 - h)) / (2 * h)
    torch.testing.assert_close(gradient, difference, rtol=1e-5, atol=1e-8)


def test_with_the_exact_map_the_bias_is_one_over_the_particles_and_none_without_own_pairs():
    """``(2/M)(1 - E k(y, y'))`` over 4096 groups; the bounds are five standard errors."""
    groups, model = 4096, GaussianMap()
    for m in (2, 8):
        pairs, times = drawn(groups * m, seed=m), times_of(groups * m)
        t, r, s = times.unbind(1)
        ends = [model.flow_map(model.path.point(pairs.x, pairs.e, v).x_t, v, r) for v in (t, s)]
        own = torch.exp(-(ends[0] - ends[1]).norm(dim=1) / (3 * (t - r))).mean()
        for unbiased, expected in ((False, 2.0 / m * (1.0 - own)), (True, 0.0)):
            objective = MomentMatching(particles=m, unbiased=unbiased)
            loss = objective.loss(model, pairs, times, rng=None).per_sample[::m]
            assert abs(loss.mean() - expected) < 5.0 * loss.std() / groups**0.5


@pytest.mark.parametrize("a", [1.0, 2.0])
def test_the_weight_is_that_of_the_paper(a):
    schedule = ScaledNoise(of=Linear(), noise=SD)
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64, requires_grad=True)
    plain = Linear().coefficients(t)
    log_snr = 2.0 * torch.log(plain.alpha / plain.sigma)
    (slope,) = torch.autograd.grad(log_snr.sum(), t)
    shape = plain.alpha**a / (plain.alpha**2 + plain.sigma**2)
    expected = 0.5 * torch.sigmoid(4.0 - log_snr) * -slope * shape
    weight = SigmoidOfSNR(a=a, b=4.0, noise=SD)
    torch.testing.assert_close(weight(schedule.coefficients(t.detach())), expected.detach())
    ends = weight(schedule.coefficients(torch.tensor([0.0, 1.0], dtype=torch.float64)))
    assert torch.isfinite(ends).all()


def test_scaled_noise_is_the_same_family_of_levels():
    schedule, t = ScaledNoise(of=Linear(), noise=SD), torch.linspace(0.0, 1.0, 9).double()
    torch.testing.assert_close(schedule.time_at_nsr(schedule.nsr(t)), t)
    torch.testing.assert_close(schedule.nsr(t), SD * Linear().nsr(t))
    assert (schedule.t_min, schedule.t_max, schedule.ends_in_source) == (0.0, 1.0, True)
    assert schedule.identity() != ScaledNoise(of=Linear(), noise=0.6).identity()
    with pytest.raises(ValueError, match="noise is 0"):
        ScaledNoise(of=Linear(), noise=0)


class Settings:
    def __init__(self, batch_size, micro_batch=None):
        self.batch_size, self.micro_batch = batch_size, micro_batch


@pytest.mark.parametrize(
    ("settings", "key"),
    [(Settings(10), "trainer.batch_size"), (Settings(64, 6), "trainer.micro_batch")],
)
def test_batches_hold_whole_groups(settings, key):
    refusal = refusal_of(MomentMatching(particles=4), trainer=settings)
    assert refusal.startswith(f"{key}: ")
    assert refusal.endswith("Choose a multiple of 4.")
    assert refusal_of(MomentMatching(particles=4), trainer=Settings(64, 8)) is None


def test_parts_of_whole_groups_have_the_loss_of_the_batch():
    model, pairs, times = GaussianMap(), drawn(16), times_of(16)
    objective = MomentMatching(particles=4)
    whole = objective.loss(model, pairs, times, rng=None).per_sample
    parts = [
        objective.loss(model, part, t, rng=None).per_sample
        for part, t in micro_batches(pairs, times, 8)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_processes_hold_whole_groups():
    settings = TrainerSettings(max_kimg=1, batch_size=24)
    assert settings.share(3, group=4) == 8
    with pytest.raises(UsageError, match="by 4 processes in groups of 4") as refused:
        settings.share(4, group=4)
    assert refused.value.remedy == "Choose a multiple of 16."


def test_a_model_of_one_time_is_refused():
    refusal = refusal_of(MomentMatching(), parameterization=DataPrediction())
    assert refusal.startswith("parameterization: MomentMatching trains a flow map")


def test_the_remedy_for_times_of_another_kind_is_its_own_law():
    refusal = refusal_of(MomentMatching(), timestep=Sorted(Uniform()))
    assert refusal.endswith("Use timestep=imm.")


@pytest.mark.parametrize("wrong", [{"particles": 0}, {"particles": 1, "unbiased": True}])
def test_bad_numbers_of_particles(wrong):
    with pytest.raises(ValueError, match="particles is"):
        MomentMatching(**wrong)
