import math
from dataclasses import replace

import pytest
import torch

from flowexp.broadcast import expand_as
from flowexp.config.check import check
from flowexp.objectives import SquaredL2
from flowexp.objectives.flow_map import (
    JVP,
    AdaptiveByShare,
    ConstantMix,
    DataVelocity,
    DecayingMix,
    DrawnGuidance,
    DropEach,
    FixedShare,
    GuidanceScaleMix,
    Guided,
    HeadVelocity,
    Legs,
    OwnVelocity,
    Residual,
    Tangent,
)
from tests.objectives.flow_map.labelled import Labelled, leap_of, matching


def guided(mix, **options):
    return Guided(of=DataVelocity(), mix=mix, **options)


def without_grad(driver, model, leap):
    with torch.no_grad():
        return driver.velocity(model, leap, leap.t)


def test_the_velocities_are_mixed_inside_the_window_only():
    mix = ConstantMix(omega=0.3, kappa=0.5, start=0.2, end=0.6)
    objective, model = matching(driver=guided(mix)), Labelled()
    leap = leap_of(objective, model)
    v_c, v_u = (without_grad(OwnVelocity(), model, rows) for rows in (leap, leap.unlabelled()))
    inside = ((leap.t >= 0.2) & (leap.t <= 0.6))[:, None]
    assert inside.any()
    assert not inside.all()
    expected = torch.where(inside, 0.3 * leap.velocity + 0.5 * v_c + 0.2 * v_u, leap.velocity)
    torch.testing.assert_close(without_grad(objective.driver, model, leap), expected)


@pytest.mark.parametrize("closed", [True, False])
def test_the_ends_of_the_window(closed):
    mix = ConstantMix(kappa=0.5, start=0.2, end=0.6, closed=closed)
    leap = replace(leap_of(matching(), Labelled()), t=torch.tensor([0.2, 0.4, 0.6, 0.7]))
    kappa = mix.weights(leap)[1]
    assert kappa.tolist() == [0.5 * closed, 0.5, 0.5 * closed, 0.0]


@pytest.mark.parametrize(
    ("omega", "kappa", "evaluated"),
    [(1.0, 0.0, []), (2.0, 0.0, [-1]), (1.0, 0.5, [0, -1]), (0.08, 0.92, [0])],
)
def test_only_what_is_needed_is_evaluated(omega, kappa, evaluated):
    """Whether the label of the first row is that of the class, 0, or none, -1."""
    model = Labelled()
    leap = leap_of(matching(), model)
    velocity = guided(ConstantMix(omega=omega, kappa=kappa)).velocity(model, leap, leap.t)
    assert [int(call["labels"][0]) for call in model.received] == evaluated
    assert velocity.equal(leap.velocity) is not bool(evaluated)


def test_rows_without_label_are_not_guided_unless_asked_to():
    mix = ConstantMix(omega=0.2, kappa=0.5)
    objective = matching(driver=guided(mix), labels=DropEach(label_dropout=0.5))
    model = Labelled()
    leap = leap_of(objective, model)
    dropped = leap.dropped
    assert without_grad(objective.driver, model, leap)[dropped].equal(leap.velocity[dropped])
    too = without_grad(guided(mix, guides_dropped=True), model, leap)[dropped]
    v_u = without_grad(OwnVelocity(), model, leap.unlabelled())
    torch.testing.assert_close(too, (0.2 * leap.velocity + 0.8 * v_u)[dropped])


def test_rows_with_equal_times_have_the_guided_target():
    objective, model = matching(driver=guided(ConstantMix(omega=2.0, kappa=0.0))), Labelled()
    leap = leap_of(objective, model)
    comparison = objective.leg.compare(model, leap, legs_of(objective))
    equal = leap.r == leap.t
    expected = without_grad(objective.driver, model, leap)
    assert equal.any()
    torch.testing.assert_close(comparison.target[equal], expected[equal])
    assert not comparison.target.requires_grad


def legs_of(objective):
    return Legs(objective.driver, objective.target, objective.diagonal)


def test_soflow_s_scale_decays_to_one():
    mix = DecayingMix(scale=3.0, mix=0.5, decay_time=0.75)
    t = torch.tensor([0.1, 0.75, 0.75 + 1e-9, 0.9, 1.0], dtype=torch.float64)
    g = mix.decay(t)
    assert g[:2].tolist() == [1.0, 1.0]
    assert 0.999 < g[2] <= 1.0
    assert 0.0 < g[3] < 0.5
    assert g[4] == 0.0
    leap = replace(leap_of(matching(), Labelled()), t=t)
    omega, kappa = mix.weights(leap)
    torch.testing.assert_close(omega, 0.5 * (1.0 + 2.0 * g))
    assert kappa.tolist() == [0.5] * 5
    omega, kappa = DecayingMix(scale=1.0).weights(leap)
    assert omega.eq(1.0).all()
    assert kappa.eq(0.0).all()


def test_a_scale_of_one_is_not_guided():
    """Rows outside their interval, and of scale 1, have the data's velocity."""
    objective = matching(
        driver=guided(GuidanceScaleMix(), predicted=HeadVelocity()), guidance_inputs=DrawnGuidance()
    )
    model = Labelled()
    leap = leap_of(objective, model)
    start, end = leap.conditions["guidance_start"], leap.conditions["guidance_end"]
    outside = (leap.t < start) | (leap.t > end)
    assert outside.any()
    velocity = without_grad(objective.driver, model, leap)
    assert velocity[outside].equal(leap.velocity[outside])
    assert (velocity - leap.velocity)[~outside].abs().amin(1).gt(0.0).all()
    # v_c and v_u are evaluated like rows with r = t in training, v_u at guidance scale 1
    for call in model.received:
        assert call["guidance_start"].eq(0.0).all()
        assert call["guidance_end"].eq(1.0).all()
        assert call["r"].equal(call["t"])
    assert model.received[-1]["guidance_scale"].eq(1.0).all()
    assert model.received[-1]["labels"].eq(-1).all()


def test_a_loss_of_v_has_meanflow_s_gradient():
    """``|u + (t - r) sg[du/dt] - v|^2``: the same residual, the derivative on the other side."""
    objective, model = matching(), Labelled()
    leap = leap_of(objective, model)

    def u(x, t, r):
        return model.average_velocity(x, t, r, **leap.conditions)

    one, zero = torch.ones_like(leap.t), torch.zeros_like(leap.t)
    value, slope = JVP().along(u, (leap.x_t, leap.t, leap.r), (leap.velocity, one, zero))
    compound = value + (leap.t - leap.r)[:, None] * slope.detach()
    expected = model.gradients((compound - leap.velocity).square().mean(1).mean())
    found = model.gradients(objective.losses(model, leap)[0].mean())
    torch.testing.assert_close(found, expected)


def test_the_derivative_can_go_along_the_head_s_velocity():
    objective = matching(leg=Tangent(direction=HeadVelocity()))
    model = Labelled()
    leap = leap_of(objective, model, equal=0)
    with torch.no_grad():
        _, v = model.with_velocity_head(leap.x_t, leap.t, leap.t, **leap.conditions)

        def u(x, t, r):
            return model.average_velocity(x, t, r, **leap.conditions)

        one, zero = torch.ones_like(leap.t), torch.zeros_like(leap.t)
        _, slope = JVP().along(u, (leap.x_t, leap.t, leap.r), (v, one, zero))
    target = objective.leg.compare(model, leap, legs_of(objective)).target
    expected = leap.velocity - (leap.t - leap.r)[:, None] * slope
    torch.testing.assert_close(target, expected)


def test_the_direction_keeps_labels_that_are_dropped():
    objective = matching(labels=DropEach(label_dropout=0.9))
    model = Labelled()
    leap = leap_of(objective, model)
    for labelled, labels in ((True, leap.given), (False, leap.conditions)):
        model.received.clear()
        HeadVelocity(labelled=labelled).velocity(model, leap, leap.t)
        assert model.received[0]["labels"].equal(labels["labels"])


def test_the_velocity_head_has_a_loss_of_its_own():
    parts = {"driver": guided(ConstantMix(kappa=0.5)), "premetric": SquaredL2()}
    model = Labelled()
    alone, both = matching(**parts), matching(**parts, head_weight=0.5)
    leap = leap_of(alone, model)
    velocity = without_grad(alone.driver, model, leap)
    _, head = model.with_velocity_head(leap.x_t, leap.t, leap.r, **leap.conditions)
    expected = alone.losses(model, leap)[0] + 0.5 * (head - velocity).square().mean(1)
    found, metrics = both.losses(model, leap)
    torch.testing.assert_close(found, expected)
    assert set(metrics) == {"error", "head_error"}
    assert model.gradients(found.sum())[2].abs().sum() > 0.0


class Rotating(Labelled):
    """``X = cos(pi (t - r)/2) z - sin(pi (t - r)/2) F``."""

    def average_velocity(self, x_t, t, r, **conditions):
        angle = 0.5 * math.pi * (t - r)
        turned = expand_as(torch.cos(angle), x_t) * x_t
        turned = turned - expand_as(torch.sin(angle), x_t) * self.output(x_t, t, r, **conditions)
        return (x_t - turned) / expand_as(t - r, x_t)

    def output(self, x_t, t, r, **conditions):
        return super().average_velocity(x_t, t, r, **conditions)

    def output_scale(self, t, r):
        return torch.sin(0.5 * math.pi * (t - r)) / (t - r)


def test_soflow_s_gradient_is_that_of_the_authors_surrogate():
    """``sign(b) w mean(F sg[(X_t - X_s)/(t - s)])`` with ``X = a z + b F``, also for a rotation."""
    share, p, c = 0.25, 0.75, 1e-3
    objective = matching(
        leg=FixedShare(share=share),
        regressed=Residual(),
        error_weight=AdaptiveByShare(p=p, c=c, factor=0.5, per_output=True),
    )
    for model in (Labelled(), Rotating()):
        leap = leap_of(objective, model, equal=0)
        s = leap.t - share * (leap.t - leap.r)
        with torch.no_grad():
            x_s = leap.x_t - expand_as(leap.t - s, leap.x_t) * leap.velocity
            here = model.flow_map(leap.x_t, leap.t, leap.r, **leap.conditions)
            there = model.flow_map(x_s, s, leap.r, **leap.conditions)
            quotient = (here - there) / expand_as(leap.t - s, here)
            weight = (quotient.square().mean(1) + c) ** -p
        evaluate = getattr(model, "output", model.average_velocity)
        output = evaluate(leap.x_t, leap.t, leap.r, **leap.conditions)
        surrogate = -(output * quotient).mean(1) * weight  # b < 0
        found = model.gradients(objective.losses(model, leap)[0].mean())
        torch.testing.assert_close(found, model.gradients(surrogate.mean()))


def test_bad_input():
    with pytest.raises(ValueError, match=r"kappa is 1.0"):
        ConstantMix(kappa=1.0)
    with pytest.raises(ValueError, match=r"start is 0.6"):
        ConstantMix(start=0.6, end=0.6)
    with pytest.raises(ValueError, match=r"scale is 0.5"):
        DecayingMix(scale=0.5)
    with pytest.raises(ValueError, match=r"mix is 1.5"):
        DecayingMix(mix=1.5)
    with pytest.raises(ValueError, match="need decay_time > 0"):
        DecayingMix(decay_time=0.0)
    with pytest.raises(ValueError, match="head_weight is -1"):
        matching(head_weight=-1)
    with pytest.raises(ValueError, match="head_weight is 1"):
        matching(head_weight=1, driver=OwnVelocity())
    with pytest.raises(ValueError, match="factor is 0"):
        AdaptiveByShare(factor=0)


IMPROVED = ["objective=improved_meanflow", "parameterization=average_velocity_guided",
            "timestep=sorted", "dataset=digits"]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["network.out_channels=2"], []),
        ([], ["network.out_channels"]),
        (["network.out_channels=2", "parameterization.conditions_on=[gap]"],
         ["parameterization.conditions_on"]),
        (["network.out_channels=2", "objective/guidance_inputs=none"],
         ["objective.guidance_inputs"]),
        (["parameterization=average_velocity"], ["parameterization"]),
        (["parameterization=velocity"], ["parameterization"]),
        (["parameterization.velocity_head=false"], ["objective.head_weight"]),
        (["objective.head_weight=0", "network.out_channels=2"], ["objective.head_weight"]),
        (["network.out_channels=2", "network.label_dim=0"], ["objective.driver"]),
    ],
)  # fmt: skip
def test_what_improved_meanflow_needs(overrides, keys):
    found = sorted(problem.key for problem in check("train", [*IMPROVED, *overrides]).problems)
    assert found == keys


def test_the_parameterization_of_improved_meanflow_is_named_once_with_its_channels():
    given = ["objective=improved_meanflow", "timestep=sorted", "dataset=digits"]
    (problem,) = check("train", [*given, "parameterization=average_velocity"]).problems
    assert (
        "no guidance_scale, guidance_start, guidance_end and has no velocity head" in problem.text
    )
    remedy = problem.remedy.removeprefix("Use ").removesuffix(".").split()
    assert check("train", [*given, *remedy]).problems == []


def test_guidance_without_dropped_labels_is_warned_of():
    typed = ["objective=meanflow_guided", "objective/labels=keep", "dataset=digits",
             "parameterization=average_velocity", "timestep=sorted"]  # fmt: skip
    found = check("train", typed)
    assert found.problems == []
    (remark,) = [remark for remark in found.remarks if "never learns" in remark]
    assert remark.startswith("objective.labels: ")
    assert "Set objective/labels=drop." in remark
