"""Consistency models' parts: chords, teacher steps, weights of two times, TCM's stages, presets."""

from dataclasses import replace

import pytest
import torch

from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives import L2, FlowMapMatching, PseudoHuber, SquaredL2
from flowexp.objectives.flow_map import (
    BoundaryRows,
    DataChord,
    DataVelocity,
    EndPoint,
    GivenMiddle,
    InverseGap,
    PerceptualEndPoint,
    RandomShare,
    TeacherStep,
    TruncatedTarget,
    UniformLeaps,
)
from flowexp.parameterizations import DDIMJump, EDMPreconditioning, FlowMap
from flowexp.paths import VE, VP, Linear, Path, Prediction
from flowexp.timesteps import LogNormal, Sorted
from tests.refusals import refusal_of

F64 = torch.float64


class GaussianMap(Model):
    """Exact predictions of data N(0, s^2) on a path, and its flow map to a power, right at 1."""

    is_flow_map = True
    time_range = (0.0, 1e6)

    def __init__(self, schedule, s=0.5, power=1.0):
        self.path, self.s = Path(schedule), s
        self.power = torch.tensor(power, dtype=F64, requires_grad=True)

    def _std(self, t):
        c = self.path.schedule.coefficients(t)
        return ((c.alpha * self.s) ** 2 + c.sigma**2).sqrt()[:, None]

    def predict(self, x_t, t, **conditions):
        c = self.path.schedule.coefficients(t)
        data = x_t * (c.alpha * self.s**2)[:, None] / self._std(t) ** 2
        return Prediction.of_data(self.path, x_t, t, data)

    def average_velocity(self, x_t, t, r, **conditions):
        end = (self._std(r) / self._std(t)) ** self.power * x_t
        return (x_t - end) / (t - r)[:, None]


def leap_of(objective, model, t, s, *, n=None, seed=0):
    n = len(t) if n is None else n
    rng = torch.Generator().manual_seed(seed)
    x = model.s * torch.randn(n, 3, generator=rng, dtype=F64)
    e = torch.randn(n, 3, generator=rng, dtype=F64)
    times = torch.stack([t, torch.zeros_like(t), s], dim=1)
    return objective.leap(model, Pairs(x, e, {}), times, rng=rng)


def matching(**parts):
    parts = {"driver": DataChord(), "premetric": SquaredL2()} | parts
    return FlowMapMatching(leg=GivenMiddle(), regressed=EndPoint(), **parts)


T = torch.tensor([0.3, 0.6, 0.9], dtype=F64)
S = torch.tensor([0.1, 0.0, 0.89999], dtype=F64)


@pytest.mark.parametrize("schedule", [VE(), Linear(), VP()], ids=lambda s: type(s).__name__)
def test_the_chord_ends_on_the_pairs_own_path(schedule):
    objective, model = matching(), GaussianMap(schedule)
    leap = leap_of(objective, model, T, S)
    reached = leap.x_t - (T - S)[:, None] * objective.driver.velocity(model, leap, S)
    torch.testing.assert_close(reached, model.path.point(leap.x, leap.e, S).x_t)
    if not isinstance(schedule, VP):
        straight = DataVelocity().velocity(model, leap, S)
        torch.testing.assert_close(objective.driver.velocity(model, leap, S), straight)


def test_rows_to_0_are_compared_with_the_data_themselves():
    """The root of their squared denoising error over t."""
    objective = matching(premetric=L2(mean=False), leap_weight=InverseGap())
    model = GaussianMap(VE())
    leap = leap_of(objective, model, T, torch.zeros_like(T))
    loss, _ = objective.losses(model, leap)
    end = model.flow_map(leap.x_t, T, torch.zeros_like(T))
    torch.testing.assert_close(loss, (end - leap.x).norm(dim=1) / T)


def test_distillation_of_the_exact_velocity_is_exact_to_the_order_of_the_solver():
    """The Heun step's error falls as its third power, and so does the difference of the ends."""
    teacher = GaussianMap(VE())
    model, errors = GaussianMap(VE()), []
    objective = matching(driver=TeacherStep(teacher=teacher), premetric=L2(mean=False))
    t = torch.full((64,), 1.0, dtype=F64)
    for step in (0.1, 0.05, 0.025):
        leap = leap_of(objective, model, t, t - step)
        errors.append(float(objective.losses(model, leap)[1]["error"].detach().mean()))
    assert 7.0 < errors[0] / errors[1] < 9.0
    assert 7.5 < errors[1] / errors[2] < 8.5


class Labelled(GaussianMap):
    """Its scale depends on the label, -1 = none."""

    def predict(self, x_t, t, *, labels):
        found = super().predict(x_t, t)
        scale = 1.0 + 0.3 * (labels + 1.0)
        return Prediction.of_velocity(self.path, x_t, t, scale[:, None] * found.velocity)


def test_a_guided_teacher_is_guided_at_both_ends_of_its_step():
    teacher, scale, s = Labelled(VE()), 2.5, 0.5 * T
    labels = torch.tensor([0, 1, 2])
    leap = replace(leap_of(matching(), GaussianMap(VE()), T, s), conditions={"labels": labels})

    def guided(x, t):
        free = teacher.velocity(x, t, labels=torch.full_like(labels, -1))
        return free + scale * (teacher.velocity(x, t, labels=labels) - free)

    first = guided(leap.x_t, T)
    expected = 0.5 * (first + guided(leap.x_t - (T - s)[:, None] * first, s))
    step = TeacherStep(teacher=teacher, guidance_scale=scale)
    torch.testing.assert_close(step.velocity(teacher, leap, s), expected)


def mean_gradient(power, *, batches=20, rows=2000, gap=1e-3):
    """Of the loss over the gap in the map's power at t = 1; and its standard error."""
    objective, model = matching(), GaussianMap(VE(), power=power)
    t, found = torch.ones(rows, dtype=F64), []
    for seed in range(batches):
        leap = leap_of(objective, model, t, t - gap, seed=seed)
        loss = objective.losses(model, leap)[0].mean()
        found.append(torch.autograd.grad(loss, model.power)[0] / gap)
    gradients = torch.stack(found)
    return float(gradients.mean()), float(gradients.std()) / batches**0.5


def test_training_from_data_is_unbiased_at_the_exact_map():
    """Its mean gradient there is 0 within four standard errors (false alarms: 1 in 15,000)."""
    mean, error = mean_gradient(1.0)
    assert abs(mean) < 4.0 * error + 1e-3
    mean, error = mean_gradient(1.3)
    assert mean > 20.0 * error


def test_a_teacher_is_not_asked_below_its_times():
    teacher = GaussianMap(VE())
    teacher.time_range = (0.2, 80.0)
    evaluated = []
    predict = teacher.predict
    teacher.predict = lambda x, t, **c: evaluated.append(t) or predict(x, t, **c)
    objective, model = matching(driver=TeacherStep(teacher=teacher)), GaussianMap(VE())
    leap = leap_of(objective, model, T, S)
    step = objective.driver.velocity(model, leap, S)
    assert min(float(t.min()) for t in evaluated) >= 0.2
    torch.testing.assert_close(step[:2], teacher.velocity(leap.x_t, T)[:2])


def test_gap_weights_are_those_of_the_noise_levels():
    weight = InverseGap(power=0.5)
    objective = matching(leap_weight=weight)
    for schedule in (VE(), Linear()):
        model = GaussianMap(schedule)
        leap = leap_of(objective, model, T, S)
        gap = schedule.nsr(T) - schedule.nsr(S)
        torch.testing.assert_close(weight(leap, schedule), gap**-0.5)
    with pytest.raises(ValueError, match=r"power is 0\.0; expected a positive number"):
        InverseGap(power=0.0)


def test_boundary_rows_have_a_mean_of_their_own():
    t = torch.tensor([3.0, 1.0 + 1e-8, 2.0, 1.0 + 1e-8], dtype=F64)
    weight = BoundaryRows(of=UniformLeaps(), at=1.0, weight=0.1)
    objective = matching(leap_weight=weight)
    model = GaussianMap(VE())
    leap = leap_of(objective, model, t, 0.9 * t)
    loss, rows = objective.losses(model, leap)
    error = rows["error"]
    expected = error[[0, 2]].mean() + 0.1 * error[[1, 3]].mean()
    torch.testing.assert_close(loss.mean(), expected)
    inner = leap.rows(t > 1.5)
    torch.testing.assert_close(weight(inner, VE()), torch.ones(2, dtype=F64))


def test_below_the_boundary_the_first_stage_answers_and_gets_no_gradient():
    first, student = GaussianMap(VE(), power=3.0), GaussianMap(VE(), power=2.0)
    target = TruncatedTarget(teacher=first, at=0.5).of(student)
    x = torch.ones(3, 3, dtype=F64)
    s = torch.tensor([0.4, 0.5, 2.0], dtype=F64)
    found = target.flow_map(x, s, torch.zeros_like(s))
    expected = torch.cat([
        first.flow_map(x, s, torch.zeros_like(s))[:1],
        student.flow_map(x, s, torch.zeros_like(s))[1:],
    ])  # fmt: skip
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match=r"at is 0\.0; expected a positive time"):
        TruncatedTarget(teacher=first, at=0.0)


def test_a_perceptual_distance_sees_both_ends_and_may_stand_alone():
    seen = []

    def distance(a, b):
        seen.append((a, b))
        return (a - b).abs().flatten(1).sum(1)

    regressed = PerceptualEndPoint(perceptual=distance)
    alone = FlowMapMatching(
        driver=DataChord(), leg=GivenMiddle(), regressed=regressed, premetric=None
    )
    model = GaussianMap(VE())
    leap = leap_of(alone, model, T, S)
    error = alone.losses(model, leap)[1]["error"]
    ends = model.flow_map(leap.x_t, T, torch.zeros_like(T))
    torch.testing.assert_close(seen[0][0], ends.float())
    assert seen[0][0].dtype == torch.float32
    assert torch.equal(seen[0][1][1], leap.x[1].float())
    both = FlowMapMatching(
        driver=DataChord(), leg=GivenMiddle(), regressed=regressed, premetric=SquaredL2()
    )
    square = matching().losses(model, leap)[1]["error"]
    torch.testing.assert_close(both.losses(model, leap)[1]["error"], error + square)


def test_the_scales_of_consistency_models_premetrics():
    d = torch.randn(5, 12, dtype=F64, generator=torch.Generator().manual_seed(0))
    norm = d.norm(dim=1)
    torch.testing.assert_close(L2(mean=False)(d), norm)
    huber = PseudoHuber(c_per_root=0.00054, mean=False)
    c = 0.00054 * 12**0.5
    assert huber.transition(3072) == pytest.approx(0.03, abs=1e-4)
    torch.testing.assert_close(huber(d), (norm**2 + c**2).sqrt() - c)
    tiny, large = (PseudoHuber(c=c, mean=False) for c in (1e-8, 1e5))
    torch.testing.assert_close(tiny(d), norm)
    torch.testing.assert_close(large(d), norm**2 / 2e5)


def test_a_map_to_the_data_refuses_times_that_end_before_it():
    objective = FlowMapMatching(driver=DataVelocity(), leg=RandomShare(), premetric=SquaredL2())
    rule = FlowMap(of=EDMPreconditioning(), jump=DDIMJump(), conditions_on=[])
    parts = {"timestep": Sorted(LogNormal()), "ema": {}}
    assert refusal_of(objective, parameterization=rule, **parts) == (
        "timestep: Sorted draws r > 0, but the flow map of this model ends at the data only. "
        "Use parameterization=average_velocity."
    )
    conditioned = FlowMap(of=EDMPreconditioning(), jump=DDIMJump(), conditions_on=["gap"])
    assert refusal_of(objective, parameterization=conditioned, **parts) is None


def test_a_first_stage_must_be_a_flow_map_on_the_same_path():
    class Plain(GaussianMap):
        is_flow_map = False

    model, plain = GaussianMap(VE()), Plain(VE())
    assert refusal_of(TruncatedTarget(teacher=model), path=model.path) is None
    assert refusal_of(TruncatedTarget(teacher=plain), path=model.path) == (
        ".teacher: the teacher is no flow map, but the first stage of one is needed. "
        "Name a run of a consistency model: teacher=DIR."
    )
    found = refusal_of(TruncatedTarget(teacher=model), path=Path(Linear()))
    assert found.startswith(".: the teacher's path is ")
