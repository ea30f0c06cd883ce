"""First-order ODEs: one DDIM step is exact on every path, Euler's only where the path is straight.

Source: Wang et al., Rectified Diffusion, 2024, arXiv 2410.07303, section 3.
"""

import pytest
import torch

from flowexp.diagnostics import FirstOrderDefect
from flowexp.models import Model
from flowexp.paths import VE, VP, DiscreteVP, Linear, Path, Prediction
from flowexp.samplers import DDIM, Euler, Natural

STRAIGHT = {"linear": Linear(t_min=1e-6), "ve": VE()}
CURVED = {"vp": VP(), "discrete_vp": DiscreteVP()}
SCHEDULES = STRAIGHT | CURVED


class PairOracle(Model):
    """Knows the noise its pairs start from, whatever the state: a first-order model."""

    def __init__(self, path, e):
        self.path, self.e = path, e
        high = min(path.schedule.t_max, 0.999 if path.schedule.ends_in_source else torch.inf)
        self.time_range = (path.schedule.t_min, high)

    def predict(self, x_t, t, **conditions):
        return Prediction.of_noise(self.path, x_t, t, self.e)


def noise():
    return torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def ends(sampler, schedule):
    """What 1, 2 and 25 steps reach; x is not known at the start, so the pairs' x is 0 there."""
    e = noise()
    model = PairOracle(Path(schedule), e)
    grid = {"time_grid": Natural(t_end=schedule.t_min)}
    return [sampler(steps=n, **grid).sample(model, e).x for n in (1, 2, 25)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_one_ddim_step_is_as_good_as_many(name):
    one, two, many = ends(DDIM, SCHEDULES[name])
    torch.testing.assert_close(one, two, rtol=0, atol=1e-10)
    torch.testing.assert_close(one, many, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", STRAIGHT)
def test_eulers_steps_agree_on_straight_paths(name):
    one, _, many = ends(Euler, STRAIGHT[name])
    torch.testing.assert_close(one, many, rtol=0, atol=1e-10)
    torch.testing.assert_close(one, ends(DDIM, STRAIGHT[name])[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", CURVED)
def test_eulers_steps_fail_on_variance_preserving_paths(name):
    """The point of the paper: first-order does not mean straight."""
    one, _, many = ends(Euler, CURVED[name])
    exact = ends(DDIM, CURVED[name])[0]
    assert float((one - many).abs().max()) > 0.1
    assert float((one - exact).abs().max()) > 0.1


def test_the_metric_is_there_under_its_name():
    assert FirstOrderDefect().name == "first_order"
