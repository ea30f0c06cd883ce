"""The conditional path and where sampling starts."""

import pytest
import torch

from flowexp.paths import VE, Linear, Path
from tests.paths.schedules import SCHEDULES, inner_times


@pytest.mark.parametrize("name", SCHEDULES)
def test_velocity_is_the_time_derivative_of_the_state(name):
    path = Path(SCHEDULES[name])
    t = inner_times(path.schedule, 7)
    rng = torch.Generator().manual_seed(0)
    x, e = torch.randn(2, 7, 5, generator=rng, dtype=torch.float64)
    point = path.point(x, e, t)
    h = 1e-6 * t
    slope = (path.point(x, e, t + h).x_t - path.point(x, e, t - h).x_t) / (2 * h)[:, None]
    torch.testing.assert_close(point.velocity, slope, rtol=1e-6, atol=1e-6)


def test_linear_ends_and_velocity():
    x, e = torch.full((2, 3), 2.0), torch.full((2, 3), 5.0)
    point = Path(Linear()).point(x, e, torch.tensor([0.0, 1.0]))
    assert torch.equal(point.x_t, torch.stack([x[0], e[0]]))
    assert torch.equal(point.velocity, e - x)
    assert point.t.dtype == torch.float64
    assert point.data is x
    assert point.noise is e


def test_start_is_the_scaled_source():
    e = torch.ones(2, 3)
    assert torch.equal(Path(VE()).start(e, torch.tensor(80.0)), 80.0 * e)
    assert torch.equal(Path(Linear()).start(e, torch.tensor(1.0)), e)


def test_time_of_a_wrong_batch_size_is_refused():
    with pytest.raises(ValueError, match="coefficient has shape"):
        Path(Linear()).point(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(2))
