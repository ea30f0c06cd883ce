import pytest
import torch

from flowexp.paths import VE, VP, Cosine, Linear, Path, Trigonometric
from flowexp.samplers import EDMGrid, IDDPMGrid, LogSNR, VPGrid
from tests.samplers.closed_forms import DenoiserModel

GRIDS = [EDMGrid, LogSNR, VPGrid, IDDPMGrid]
SCHEDULES = {
    "ve": VE(),
    "vp": VP(),
    "linear": Linear(),
    "linear_noisy": Linear(sigma_min=1e-3),
    "trigonometric": Trigonometric(),
    "cosine": Cosine(),
}


def on(schedule, *time_range):
    return DenoiserModel(Path(schedule), None, time_range=time_range or None)


@pytest.mark.parametrize("to_zero", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_contract(grid, name, steps, to_zero):
    model = on(SCHEDULES[name])
    times = grid(to_zero=to_zero).times(model, steps)
    low, high = model.time_range
    assert times.shape == (steps + 1,)
    assert times.dtype == torch.float64
    assert (times.diff() < 0).all()
    assert float(times[0]) <= high
    assert float(times[-2]) >= low
    assert (float(times[-1]) == 0.0) is to_zero


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ["vp", "linear", "trigonometric", "cosine"])
def test_same_noise_levels_on_every_path(grid, name):
    settings = {"sigma_min": 0.02, "sigma_max": 40.0}
    schedule = SCHEDULES[name]
    expected = grid(**settings).times(on(VE()), 8)[:-1]
    levels = schedule.nsr(grid(**settings).times(on(schedule), 8)[:-1])
    torch.testing.assert_close(levels, expected, rtol=1e-10, atol=0)


def test_log_snr_steps_are_equal():
    schedule = VP()
    log_snr = schedule.log_snr(LogSNR(to_zero=False, sigma_min=0.01).times(on(schedule), 9))
    assert float(log_snr.diff().std()) < 1e-9


def test_vp_grid_is_uniform_in_time_on_its_own_path():
    schedule = VP(beta_min=0.1, beta_max=20.0, t_min=1e-3)
    times = VPGrid().times(on(schedule), 11)[:-1]
    uniform = torch.linspace(1.0, 1e-3, 11, dtype=torch.float64)
    torch.testing.assert_close(times, uniform, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rho", [1.0, 2.0, 3.0])
def test_vp_grid_is_even_in_a_power_of_its_own_time(rho):
    schedule = VP(t_min=1e-3)
    times = VPGrid(rho=rho, to_zero=False).times(on(schedule), 9)
    torch.testing.assert_close(
        times ** (1.0 / rho),
        torch.linspace(1.0, 1e-3 ** (1.0 / rho), 10, dtype=torch.float64),
        rtol=0,
        atol=1e-10,
    )


def test_clamped_to_the_models_range():
    times = EDMGrid(sigma_min=1e-4, sigma_max=500.0).times(on(VE(), 0.05, 30.0), 5)
    assert times[[0, -2]].tolist() == pytest.approx([30.0, 0.05], rel=1e-12)


def test_bad_values():
    with pytest.raises(ValueError, match="sigma_min=2"):
        EDMGrid(sigma_min=2.0, sigma_max=1.0)
    with pytest.raises(ValueError, match="rho is 0"):
        EDMGrid(rho=0.0)
    with pytest.raises(ValueError, match="leaves no noise levels"):
        EDMGrid(sigma_min=10.0, sigma_max=20.0).times(on(VE(), 0.05, 3.0), 5)
    with pytest.raises(ValueError, match="fewer than the 2000"):
        IDDPMGrid().times(on(VE()), 2000)
    with pytest.raises(ValueError, match=r"no VP path has sigma/alpha 0\.5 at t = 0\.001"):
        VPGrid(sigma_min=0.5).times(on(VE()), 5)
