import math

import pytest
import torch

from flowexp.config.check import check
from flowexp.objectives.flow_map import DrawnGuidance
from tests.objectives.flow_map.labelled import GUIDANCE, Labelled, leap_of, matching


@pytest.mark.parametrize("beta", [1.0, 0.0, 2.0, 1.0 + 1e-9])
def test_the_density_of_the_scale_is_a_power(beta):
    """The quantile is the inverse of ``int_1^w x^-beta dx``, up to its whole."""
    u = torch.linspace(0.0, 1.0, 33, dtype=torch.float64)
    w = DrawnGuidance(largest=8.0, beta=beta).scale(u)

    def below(value):
        power = 1.0 - beta
        return math.log(value) if abs(power) < 1e-6 else (value**power - 1.0) / power

    expected = [below(float(value)) / below(8.0) for value in w]
    torch.testing.assert_close(torch.tensor(expected, dtype=u.dtype), u, rtol=1e-6, atol=1e-7)


def test_rows_get_a_scale_and_an_interval():
    leap = leap_of(matching(guidance_inputs=DrawnGuidance()), Labelled())
    scale, start, end = (leap.conditions[name] for name in GUIDANCE)
    u = leap.uniforms["guidance_inputs"]
    equal = leap.r == leap.t
    assert scale.min() > 1.0
    assert scale.max() < 8.0
    assert start[equal].eq(0.0).all()
    assert end[equal].eq(1.0).all()
    torch.testing.assert_close(start[~equal], 0.5 * u[~equal, 1])
    torch.testing.assert_close(end[~equal], 0.5 + 0.5 * u[~equal, 2])


def test_the_scale_alone():
    leap = leap_of(matching(guidance_inputs=DrawnGuidance(interval=False)), Labelled())
    assert set(leap.conditions) == {"labels", "guidance_scale"}
    assert set(leap.instant().conditions) == {"labels", "guidance_scale"}


def test_bad_input():
    for largest in (1.0, math.inf):
        with pytest.raises(ValueError, match=f"largest is {largest}"):
            DrawnGuidance(largest=largest)
    with pytest.raises(ValueError, match="beta is inf"):
        DrawnGuidance(beta=math.inf)


OBJECTIVE = ["objective=meanflow", "parameterization=average_velocity", "timestep=sorted",
             "dataset=digits"]  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective/guidance_inputs=drawn"],
        ["parameterization.conditions_on=[gap,guidance_scale]"],
        ["objective/guidance_inputs=drawn", "parameterization.conditions_on=[gap,guidance_scale]"],
    ],
)
def test_the_network_receives_the_drawn_guidance_inputs(overrides):
    (problem,) = check("train", [*OBJECTIVE, *overrides]).problems
    assert problem.key == "parameterization.conditions_on"
    remedy = str(problem).rpartition("Set ")[2].removesuffix(".")
    assert check("train", [*OBJECTIVE, *overrides[:1], remedy]).problems == []
