"""Rectified Diffusion in phases: segments, their noise, and what the loss is zero for."""

import re

import pytest
import torch

from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives import ElementwisePseudoHuber, PhasedRectification, SquaredL2
from flowexp.objectives.phased import segment_between
from flowexp.parameterizations import NoisePrediction
from flowexp.paths import VE, VP, DiscreteVP, Linear, Path, Prediction, Trigonometric
from tests.objectives.models import tiny_model
from tests.paths.schedules import inner_times
from tests.refusals import refusal_of
from tests.samplers.closed_forms import MixtureModel

SCHEDULES = [Linear(), VP(), DiscreteVP(), Trigonometric(), VE(t_max=10.0)]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def draws(size=8):
    rng = torch.Generator().manual_seed(1)
    return (torch.randn(size, 6, dtype=torch.float64, generator=rng) for _ in range(2))


class FirstOrder(Model):
    """One data point: the noise is constant along every trajectory, on every path."""

    def __init__(self, path):
        self.path, self.time_range = path, (path.schedule.t_min, path.schedule.t_max)
        self.calls = 0

    def predict(self, x_t, t, **conditions):
        self.calls += 1
        return Prediction.of_data(self.path, x_t, t, torch.full_like(x_t, 0.3))


def mixture(path):
    return MixtureModel(path, [0.5, 0.5], [[1.0] * 6, [-1.0] * 6], [[0.4] * 6, [0.5] * 6])


def objective_of(teacher, **kwargs):
    return PhasedRectification(teacher=teacher, premetric=SquaredL2(), **kwargs)


def loss(objective, model, pairs, t):
    return objective.loss(model, pairs, t, rng=torch.Generator()).per_sample


@every_schedule
def test_a_segment_is_the_pair_behind_two_states(schedule):
    """Also where alpha is 0, at the end of the linear path."""
    x, e = draws()
    times = inner_times(schedule, n=8)
    later = torch.full_like(times, schedule.t_max)
    start, end = schedule.coefficients(later), schedule.coefficients(times)
    path = Path(schedule)
    segment = segment_between(path.point(x, e, later).x_t, start, path.point(x, e, times).x_t, end)
    torch.testing.assert_close(segment.noise, e, rtol=1e-7, atol=1e-7)
    # nothing of x is left to read where alpha is nearly 0
    seen = segment.at(end)
    torch.testing.assert_close(seen, path.point(x, e, times).x_t, rtol=1e-7, atol=1e-7)


@every_schedule
@pytest.mark.parametrize("segments", [1, 4])
def test_a_first_order_teacher_is_its_own_student(schedule, segments):
    path = Path(schedule)
    x, e = torch.full((8, 6), 0.3, dtype=torch.float64), next(draws())
    t = torch.linspace(0.05, 0.95, 8).double() * schedule.t_max
    teacher = FirstOrder(path)
    objective = objective_of(teacher, segments=segments)
    values = loss(objective, FirstOrder(path), Pairs(x=x, e=e, conditions={}), t)
    assert teacher.calls == 10
    assert float(values.max()) < 1e-10


def test_with_one_segment_the_noise_is_the_start_noise_if_and_only_if_first_order():
    path = Path(VE(t_max=10.0))
    x, e = torch.full((8, 6), 0.3, dtype=torch.float64), next(draws())
    t = torch.full((8,), 0.5, dtype=torch.float64)
    for teacher, agrees in ((FirstOrder(path), True), (mixture(path), False)):
        objective = objective_of(teacher, segments=1)
        start, end = objective.boundaries(t)
        begin = path.point(x, e, start).x_t
        reached = objective.walk(begin, start, end, conditions={})
        c = path.schedule.coefficients
        segment = segment_between(begin, c(start), reached, c(end))
        assert torch.allclose(segment.noise, e, atol=1e-8) is agrees


def test_boundaries_are_the_published_ones():
    objective = objective_of(mixture(Path(DiscreteVP())), segments=4)
    k = torch.tensor([1, 249, 250, 499, 500, 999])
    start, end = objective.boundaries(DiscreteVP().time_of(k))
    assert (start * 1000 - 1).round().int().tolist() == [249, 249, 499, 499, 749, 999]
    assert (end * 1000 - 1).round().int().tolist() == [0, 0, 249, 249, 499, 749]


def test_the_teacher_has_no_gradient_and_the_student_has():
    path = Path(VP())
    teacher, student = (tiny_model(path, NoisePrediction(), seed) for seed in (1, 0))
    x, e = draws()
    t = torch.linspace(0.1, 0.9, 8).double()
    objective = PhasedRectification(teacher=teacher, premetric=ElementwisePseudoHuber())
    loss(objective, student, Pairs(x=x, e=e, conditions={}), t).mean().backward()
    assert all(p.grad is None for p in teacher.network.parameters())
    assert all(p.grad.abs().sum() > 0 for p in student.network.parameters())


def test_another_path_than_the_teachers_is_refused():
    objective = objective_of(mixture(Path(VP())))
    assert refusal_of(objective, path=Path(VP())) is None
    assert re.search(r"teacher's path VP.*Linear", refusal_of(objective, path=Path(Linear())))


@pytest.mark.parametrize("name", ["segments", "substeps"])
def test_bad_values_are_named(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        objective_of(mixture(Path(VP())), **{name: 0})
