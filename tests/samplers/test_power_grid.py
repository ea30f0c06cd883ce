import pytest
import torch

from flowexp.paths import VE, VP, Linear, Path
from flowexp.samplers import PowerGrid
from tests.samplers.closed_forms import GaussianModel


def model(schedule):
    return GaussianModel(Path(schedule), mean=torch.zeros(2), std=1.0)


@pytest.mark.parametrize("p", [1.0, 2.0, 7.0])
def test_even_in_the_power(p):
    times = PowerGrid(p=p, t_start=0.9, t_end=0.01).times(model(VP()), 8)
    assert (float(times[0]), float(times[-1])) == (0.9, 0.01)
    gaps = (times ** (1.0 / p)).diff()
    torch.testing.assert_close(gaps, gaps[:1].expand(8), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("schedule", "first", "last"),
    [
        (VE(t_min=0.002, t_max=80.0), 80.0, 0.002),
        (Linear(), 200.0 / 201.0, 0.002 / 1.002),
        (VP(t_min=1e-3), 1.0, 1e-3),
    ],
    ids=["ve", "linear", "vp"],
)
def test_stays_where_log_snr_is_finite(schedule, first, last):
    times = PowerGrid().times(model(schedule), 4)
    assert float(times[0]) == pytest.approx(first, rel=1e-12)
    assert float(times[-1]) == pytest.approx(last, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_no_step_begins_below_the_models_range(steps):
    times = PowerGrid(t_end=0.0).times(model(VP(t_min=0.1)), steps)
    assert len(times) == steps + 1
    assert float(times[-2]) >= 0.1
    assert float(times[-1]) == 0.0
    assert bool((times.diff() < 0).all())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"p": 0.0}, "p is 0.0"),
        ({"t_start": -1.0}, "t_start is -1.0"),
        ({"t_end": -1.0}, "t_end is -1.0"),
    ],
)
def test_impossible_values(options, told):
    with pytest.raises(ValueError, match=told):
        PowerGrid(**options)


def test_start_below_end():
    with pytest.raises(ValueError, match="not below its start"):
        PowerGrid(t_start=0.1, t_end=0.2).times(model(Linear()), 3)
