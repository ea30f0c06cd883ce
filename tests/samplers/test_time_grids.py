import pytest
import torch

from flowexp.apps.list import options
from flowexp.config.check import check_job
from flowexp.config.instantiate import instantiate
from flowexp.config.signatures import signature_of
from flowexp.models import FlowModel
from flowexp.parameterizations import DataPrediction, EDMPreconditioning
from flowexp.paths import VE, VP, Linear, Path, edm_sigmas
from flowexp.samplers import Given, InsetUniform, Natural, Quadratic, Shifted, Uniform
from tests.samplers.closed_forms import DenoiserModel

UNIT = [Natural, Uniform, Quadratic, Shifted]


def on(schedule, *time_range):
    return DenoiserModel(Path(schedule), None, time_range=time_range or None)


@pytest.mark.parametrize("steps", [1, 2, 7, 1500])
@pytest.mark.parametrize("grid", UNIT)
@pytest.mark.parametrize(
    "model",
    [
        on(Linear()),
        on(VP()),
        on(VE()),
        on(Linear(), 1e-3, 0.98),
        FlowModel(Path(Linear()), network=torch.nn.Identity(), parameterization=DataPrediction()),
        FlowModel(
            Path(VE()),
            network=torch.nn.Identity(),
            parameterization=EDMPreconditioning(sigma_min=0.01, sigma_max=50.0),
        ),
    ],
    ids=["linear", "vp", "ve", "narrow", "data", "edm"],
)
def test_contract(grid, model, steps):
    times = grid().times(model, steps)
    low, high = model.time_range
    assert times.shape == (steps + 1,)
    assert times.dtype == torch.float64
    assert times.device.type == "cpu"
    assert (times.diff() < 0).all()
    assert float(times[0]) == pytest.approx(high, rel=1e-12)
    assert float(times[-2]) >= low * (1 - 1e-12)
    assert float(times[-1]) == 0.0


def test_values():
    model, u = on(Linear()), torch.linspace(1, 0, 5, dtype=torch.float64)
    assert torch.equal(Uniform().times(model, 4), u)
    assert torch.equal(Natural().times(model, 4), u)
    torch.testing.assert_close(Quadratic().times(model, 4), u**2)
    torch.testing.assert_close(Shifted(shift=3.0).times(model, 4), 3 * u / (1 + 2 * u))
    torch.testing.assert_close(Shifted(shift=1.0).times(model, 4), u)
    edm = edm_sigmas(6, sigma_min=0.002, sigma_max=80.0, rho=7.0)
    torch.testing.assert_close(Natural().times(on(VE()), 6), edm, rtol=0, atol=0)
    ending = edm_sigmas(7, sigma_min=0.1, sigma_max=80.0, rho=7.0)[:-1]
    torch.testing.assert_close(Natural(t_end=0.1).times(on(VE()), 6), ending, rtol=0, atol=1e-12)


def test_inset_grid_is_uniform_but_for_its_first_time():
    """RF++: 1 - 1e-5, 1 - i/N, 0, on the range of a network that is defined up to 1 - 1e-5."""
    u = torch.linspace(1, 0, 5, dtype=torch.float64)
    u[0] = 1.0 - 1e-5
    for model in (on(Linear()), on(Linear(), 1e-5, 1.0 - 1e-5)):
        torch.testing.assert_close(InsetUniform().times(model, 4), u, rtol=0, atol=1e-15)
    narrow = InsetUniform(margin=0.01).times(on(Linear(), 1e-3, 0.9), 2)
    assert narrow.tolist() == pytest.approx([0.9, 0.455, 0.0])
    assert InsetUniform().times(on(Linear(), 0.3, 1.0), 4)[-2] == pytest.approx(0.3)
    with pytest.raises(ValueError, match="margin is -1"):
        InsetUniform(margin=-1)


def test_shift_multiplies_the_noise_to_signal_ratio():
    model = on(Linear())
    n = model.path.schedule.nsr(Uniform().times(model, 8)[1:])
    shifted = model.path.schedule.nsr(Shifted(shift=2.5).times(model, 8)[1:])
    torch.testing.assert_close(shifted, 2.5 * n)


@pytest.mark.parametrize("grid", UNIT)
@pytest.mark.parametrize("schedule", [Linear(), VP(), VE()], ids=repr)
def test_end_above_zero(grid, schedule):
    times = grid(t_end=0.25).times(on(schedule), 3)
    assert float(times[-1]) == 0.25
    assert float(times[0]) == pytest.approx(schedule.t_max, rel=1e-12)
    assert (times.diff() < 0).all()


def test_bad_values():
    with pytest.raises(ValueError, match=r"t_end is -0\.1"):
        Uniform(t_end=-0.1)
    with pytest.raises(ValueError, match=r"t_end is 2\.0, not below"):
        Uniform(t_end=2.0).times(on(Linear()), 3)
    with pytest.raises(ValueError, match="shift is 0"):
        Shifted(shift=0.0)
    for values in ([], [1.0], [0.5, 0.5], [0.0, 1.0]):
        with pytest.raises(ValueError, match="each smaller"):
            Given(values=values)
    with pytest.raises(ValueError, match=r"sampler.steps is 3, .*has 3 times"):
        Given(values=[1.0, 0.5, 0.0]).times(on(Linear()), 3)
    assert Given(values=[1.0, 0.5, 0.0]).times(on(Linear()), 2).tolist() == [1.0, 0.5, 0.0]


def test_a_sampler_without_a_grid_has_that_of_its_yaml():
    """So that ``UniPC(steps=8)`` in a notebook is ``sampler=unipc sampler.steps=8``."""
    compared = []
    for name in options("sampler"):
        node = check_job("train", [f"sampler={name}"]).config["sampler"]
        given = signature_of(node["_target_"]).parameters.get("time_grid")
        # several options of one class: the first has the class's own grid
        variant = name in (
            "boss", "consistency", "predictor_corrector", "dpm_solver_v3_guided",
            "dpm_solver_v3_latent",
        )  # fmt: skip
        if given is None or given.required or variant:
            continue
        plain = {key: value for key, value in node.items() if key != "time_grid"}
        written, default = (instantiate(n, key="sampler").time_grid for n in (node, plain))
        assert (type(default), vars(default)) == (type(written), vars(written)), name
        compared.append(name)
    assert {"euler", "heun", "ddim", "unipc", "dpmpp_2m", "dpmpp_2s"} <= set(compared)
