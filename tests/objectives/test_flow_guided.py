"""SlimFlow's two-step term: what it is zero for, where gradients go, its two variants."""

import pytest
import torch

from flowexp.couplings import Pairs
from flowexp.models import FlowModel, Model
from flowexp.objectives import (
    FlowGuided,
    MomentMatching,
    Regression,
    SquaredL2,
    WeightedSum,
    weightings,
)
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import VE, Linear, Path, Prediction
from tests.objectives.models import TinyNetwork, tiny_model
from tests.refusals import refusal_of
from tests.samplers.closed_forms import MixtureModel

PATH = Path(Linear())


def mixture():
    return MixtureModel(PATH, [0.5, 0.5], [[1.0] * 6, [-1.0] * 6], [[0.6] * 6, [0.7] * 6])


def student(seed=0):
    return tiny_model(PATH, VelocityPrediction(), seed)


def batch(size=8):
    rng = torch.Generator().manual_seed(1)
    x, e = (torch.randn(size, 6, dtype=torch.float64, generator=rng) for _ in range(2))
    return Pairs(x=x, e=e, conditions={}), torch.ones(size, dtype=torch.float64)


def loss(objective, model, seed=0):
    pairs, t = batch()
    return objective.loss(model, pairs, t, rng=torch.Generator().manual_seed(seed))


class Straight(Model):
    """One point x: the velocity ``(x_t - x)/t`` is constant along every trajectory."""

    path, time_range = PATH, (0.0, 1.0)

    def predict(self, x_t, t, **conditions):
        return Prediction.of_data(PATH, x_t, t, torch.full_like(x_t, 0.3))


@pytest.mark.parametrize("student_first", [True, False])
def test_zero_for_a_straight_flow_that_teaches_itself(student_first):
    objective = FlowGuided(
        teacher=Straight(), student_first=student_first, premetric=SquaredL2(), low=0.1, high=0.9
    )
    assert float(loss(objective, Straight()).per_sample.abs().max()) < 1e-24


def test_the_two_variants_differ_in_who_jumps_first_alone():
    teacher = mixture()
    values = {}
    for first in (True, False):
        objective = FlowGuided(teacher=teacher, student_first=first, premetric=SquaredL2())
        values[first, "student"] = loss(objective, student()).per_sample
        values[first, "teacher"] = loss(objective, teacher).per_sample
    assert not torch.allclose(values[True, "student"], values[False, "student"], rtol=1e-3)
    torch.testing.assert_close(values[True, "teacher"], values[False, "teacher"])


@pytest.mark.parametrize("student_first", [True, False])
def test_the_gradient_goes_through_the_one_step_alone(student_first):
    """It is that of the regression of ``v_s(e, 1)`` onto the target as a constant."""
    teacher, model = student(seed=1), student(seed=0)
    objective = FlowGuided(teacher=teacher, student_first=student_first, premetric=SquaredL2())
    e, t = torch.randn(5, 6, dtype=torch.float64), torch.linspace(0.2, 0.8, 5).double()
    value, _ = objective.deviation(model, e, t, conditions={})
    value.mean().backward()
    assert all(p.grad is None for p in teacher.network.parameters())
    found = [p.grad.clone() for p in model.network.parameters()]
    start = torch.ones_like(t)
    with torch.no_grad():
        known = model.velocity(e, start)
        target = objective.target(e, t, start=start, student=known, conditions={})
    model.network.zero_grad()
    SquaredL2()(model.velocity(e, start) - target).mean().backward()
    for a, b in zip(found, model.network.parameters(), strict=True):
        torch.testing.assert_close(a, b.grad, rtol=1e-6, atol=1e-12)


class Recorded(MixtureModel):
    def predict(self, x_t, t, **conditions):
        self.received = x_t
        return super().predict(x_t, t)


def test_noise_and_times_are_drawn_from_the_generator_and_lie_in_their_range():
    teacher, model = Recorded(PATH, [1.0], [[0.0] * 6], [[0.5] * 6]), student()
    objective = FlowGuided(teacher=teacher, premetric=SquaredL2(), low=0.3, high=0.4)
    first = loss(objective, model, seed=3).per_sample
    assert ((teacher.times[-1] > 0.3) & (teacher.times[-1] < 0.4)).all()
    assert torch.equal(first, loss(objective, model, seed=3).per_sample)
    assert not torch.equal(first, loss(objective, model, seed=4).per_sample)


def test_velocities_and_pictures_differ_by_the_same():
    """x_s - x_T = v_T - v_s: a perceptual distance sees pictures, the premetric velocities."""

    def squared(a, b):
        return (a - b).flatten(1).square().mean(1)

    of_velocity = FlowGuided(teacher=mixture(), premetric=SquaredL2())
    of_pictures = FlowGuided(teacher=mixture(), perceptual=squared)
    a, b = (loss(objective, student()).per_sample for objective in (of_velocity, of_pictures))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    both = FlowGuided(teacher=mixture(), premetric=SquaredL2(), perceptual=squared)
    torch.testing.assert_close(loss(both, student()).per_sample, a + b)


def test_the_student_is_conditioned_on_the_start_time():
    seen = []

    class Conditioned(TinyNetwork):
        def forward(self, x, c_noise, **conditions):
            seen.append(c_noise)
            return super().forward(x, c_noise, **conditions)

    model = FlowModel(PATH, network=Conditioned(), parameterization=VelocityPrediction())
    loss(FlowGuided(teacher=mixture(), premetric=SquaredL2(), start_time=0.999), model)
    torch.testing.assert_close(seen[0], torch.full_like(seen[0], 0.999))
    loss(FlowGuided(teacher=mixture(), premetric=SquaredL2()), model)
    assert (seen[-1] == 1.0).all()


def test_the_sum_is_the_sum_and_names_its_parts():
    regression = Regression("velocity", weighting=weightings.Uniform(), premetric=SquaredL2())
    guided = FlowGuided(teacher=mixture(), premetric=SquaredL2())
    parts = {"distill": regression, "two_step": guided}
    total = loss(WeightedSum(parts=parts, weights={"distill": 2.0, "two_step": 0.5}), student())
    each = {name: loss(part, student()).per_sample for name, part in parts.items()}
    torch.testing.assert_close(total.per_sample, 2.0 * each["distill"] + 0.5 * each["two_step"])
    torch.testing.assert_close(total.metrics["distill"], each["distill"].mean())
    assert {"two_step", "two_step_premetric"} <= set(total.metrics)
    assert total.per_sample.requires_grad
    assert not any(value.requires_grad for value in total.metrics.values())
    plain = loss(WeightedSum(parts=parts), student()).per_sample
    torch.testing.assert_close(plain, each["distill"] + each["two_step"])


def test_a_sum_needs_the_times_and_groups_of_its_parts():
    parts = {"a": MomentMatching(particles=4), "b": MomentMatching(particles=6)}
    together = WeightedSum(parts=parts)
    assert together.group == 12
    assert together.columns == ("t", "r", "s")


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: FlowGuided(teacher=mixture()), "both null"),
        (lambda: FlowGuided(teacher=mixture(), premetric=SquaredL2(), low=0.8, high=0.2), "low"),
        (
            lambda: FlowGuided(teacher=mixture(), premetric=SquaredL2(), start_time=0.5),
            "start_time is 0.5",
        ),
        (lambda: WeightedSum(parts={}), "parts is empty"),
        (
            lambda: WeightedSum(
                parts={
                    "a": MomentMatching(),
                    "b": FlowGuided(teacher=mixture(), premetric=SquaredL2()),
                }
            ),
            "parts need different times, but share one law of them: a: t, r and s; b: t",
        ),
        (
            lambda: WeightedSum(
                parts={"a": FlowGuided(teacher=mixture(), premetric=SquaredL2())}, weights={"b": 1}
            ),
            r"weights has \['b'\]; expected \['a'\]",
        ),
    ],
)
def test_bad_values_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()


def test_other_paths_are_refused_also_within_a_sum():
    objective = FlowGuided(teacher=mixture(), premetric=SquaredL2())
    assert refusal_of(objective, path=PATH) is None
    for path in (Path(VE()), Path(Linear(sigma_min=0.1))):
        assert "linear path" in refusal_of(WeightedSum(parts={"two_step": objective}), path=path)
