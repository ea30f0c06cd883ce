import pytest
import torch

from flowexp.models import FlowModel, Model
from flowexp.parameterizations import DataPrediction, VelocityPrediction
from flowexp.paths import VE, VP, Linear, Path, Prediction, Trigonometric
from flowexp.samplers import (
    DDIM,
    DEIS,
    DPM2,
    IPNDM,
    AdamsBashforth,
    DPMSolver,
    EDMGrid,
    EDMHeun,
    Euler,
    FixedStepSampler,
    Given,
    Heun,
    LogSNR,
    Natural,
    NoiseToSignal,
    StateNoise,
    Uniform,
    UniPC,
)
from tests.samplers.closed_forms import GaussianModel

E0 = torch.tensor([[1.0, -0.5], [-1.2, 0.8]], dtype=torch.float64)


def gaussian(**kwargs):
    mean = torch.zeros(1, 2, dtype=torch.float64)
    return GaussianModel(Path(Linear()), mean=mean, std=0.5, **kwargs)


class ConstantVelocity(Model):
    """v = the condition; counts twice per call."""

    evaluations_per_call = 2

    def __init__(self):
        self.path, self.time_range = Path(Linear()), (0.0, 1.0)

    def predict(self, x_t, t, **conditions):
        return Prediction.of_velocity(self.path, x_t, t, conditions["v"].to(x_t.dtype))


def test_conditions_reach_the_model_and_calls_are_weighted():
    v = torch.tensor([[2.0, 0.0], [0.0, -4.0]])
    samples = Euler(steps=3, time_grid=Uniform()).sample(ConstantVelocity(), E0.float(), v=v)
    torch.testing.assert_close(samples.x, E0.float() - v)
    assert samples.nfe.tolist() == [6, 6]
    assert samples.nfe.dtype == torch.int64


def test_observer_sees_every_state_on_the_path():
    for variable in (None, NoiseToSignal()):
        seen = []
        sampler = Euler(steps=4, time_grid=Given(values=[0.9, 0.5, 0.2, 0.1, 0]), variable=variable)
        samples = sampler.sample(
            gaussian(), E0, on_step=lambda t, x, seen=seen: seen.append((float(t), x))
        )
        assert [t for t, _ in seen] == [0.9, 0.5, 0.2, 0.1, 0.0]
        torch.testing.assert_close(seen[0][1], 0.9 * E0)
        assert torch.equal(seen[-1][1], samples.x)


@pytest.mark.parametrize("double", [True, False])
def test_state_dtype(double):
    seen = []
    sampler = Euler(steps=2, time_grid=Uniform(), double=double)
    e = E0.float()
    samples = sampler.sample(gaussian(), e, on_step=lambda t, x: seen.append((t.dtype, x.dtype)))
    state = torch.float64 if double else torch.float32
    assert seen == [(torch.float64, state)] * 3
    assert samples.x.dtype == torch.float32
    assert torch.equal(e, E0.float())


def test_infinite_variable_is_refused():
    with pytest.raises(ValueError, match=r"NoiseToSignal is inf at t=1\.0 of Linear.*edm"):
        Euler(steps=3, time_grid=Uniform(), variable=NoiseToSignal()).sample(gaussian(), E0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 0.5, 0.05, 0.0], r"between t=1.0 and t=0.05.*\[0.1, 0.9\]"),
        ([1.0, 0.5, 0.2, 0.0], r"between t=1.0"),
        ([0.9, 0.5, 0.05, 0.0], r"t=0.05"),
    ],
)
def test_grid_outside_the_models_range_is_refused(values, message):
    sampler = Euler(steps=3, time_grid=Given(values=values))
    with pytest.raises(ValueError, match=message):
        sampler.sample(gaussian(time_range=(0.1, 0.9)), E0)


def test_steps():
    with pytest.raises(ValueError, match="steps is 0"):
        Euler(steps=0, time_grid=Natural())
    with pytest.raises(ValueError, match=r"sampler.steps is 5.*values has 3"):
        Euler(steps=5, time_grid=Given(values=[1, 0.5, 0])).sample(gaussian(), E0)


def test_a_sampler_without_a_rule_says_so():
    with pytest.raises(NotImplementedError, match="neither step nor walk"):
        FixedStepSampler(steps=1, time_grid=Natural()).sample(gaussian(), E0)


def test_single_precision_network_under_a_double_state():
    network = torch.nn.Conv2d(1, 1, 1)

    class Net(torch.nn.Module):
        def forward(self, x, c_noise, **conditions):
            assert x.dtype == c_noise.dtype == torch.float32
            return network(x)

    for head in (VelocityPrediction(), DataPrediction()):
        model = FlowModel(Path(Linear()), network=Net(), parameterization=head)
        e = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        double = DDIM(steps=5, time_grid=Natural()).sample(model, e).x
        single = DDIM(steps=5, time_grid=Natural(), double=False).sample(model, e).x
        torch.testing.assert_close(double, single, rtol=1e-5, atol=1e-5)
        assert not double.requires_grad


def test_a_method_may_have_a_default_grid_of_its_own():
    class Mine(Euler):
        def default_grid(self):
            return Uniform(t_end=0.1)

    assert Mine(steps=3).time_grid.identity() == "Uniform(t_end=0.1)"
    assert Mine(steps=3, time_grid=Natural()).time_grid.identity() == "Natural(t_end=0.0)"


class Recording(GaussianModel):
    """A model of N(0, std^2) data that records the times of its evaluations."""

    def __init__(self, schedule, std):
        super().__init__(Path(schedule), mean=torch.zeros(1, 2, dtype=torch.float64), std=std)

    def at(self, times):
        return Model.at(self, times)


ANALYTIC = {
    "euler": (Euler, Natural),
    "heun": (Heun, Natural),
    "edm_heun": (EDMHeun, EDMGrid),
    "dpm2": (DPM2, EDMGrid),
    "ddim": (DDIM, Natural),
    "ab": (AdamsBashforth, Natural),
    "ipndm": (IPNDM, EDMGrid),
    "deis": (DEIS, EDMGrid),
    "dpmpp_2m": (DPMSolver, Natural),
    "unipc": (UniPC, LogSNR),
}


@pytest.mark.parametrize("name", ANALYTIC)
def test_an_analytic_first_step_saves_the_first_evaluation(name):
    """For N(0, 1) data it errs by (alpha/sigma)^2 / 2 of the noise: at sigma = 80 by 8e-5."""
    method, grid = ANALYTIC[name]
    ends = {}
    for analytic in (False, True):
        model = Recording(VE(), std=1.0)
        sampler = method(steps=6, time_grid=grid(), analytic_first_step=analytic)
        samples = sampler.sample(model, E0)
        first = float(sampler.times(model)[0])
        assert (float(model.times[0]) == first) is not analytic
        assert samples.nfe.unique().tolist() == [len(model.times)]
        ends[analytic] = (samples.x, len(model.times))
    assert ends[True][1] == ends[False][1] - 1
    gap = float((ends[True][0] - ends[False][0]).abs().max())
    assert 0.0 < gap < 0.02
    assert "analytic first step" in sampler.describe()


@pytest.mark.parametrize("sigma", [2.0, 80.0])
@pytest.mark.parametrize("schedule", [VE(), VP(), Linear(), Trigonometric()], ids=repr)
def test_the_analytic_noise(schedule, sigma):
    """``x_t / sqrt(alpha^2 + sigma^2)``; the exact one of N(0, 1) has n/sqrt(1 + n^2) more."""
    start = schedule.time_at_nsr(torch.tensor(sigma, dtype=torch.float64))
    times = [float(start), float(start) / 2.0]
    model, seen = Recording(schedule, std=1.0), []
    sampler = DDIM(steps=1, time_grid=Given(values=times), analytic_first_step=True)
    x = sampler.sample(model, E0, on_step=lambda t, x: seen.append(x)).x
    a, b = (schedule.coefficients(torch.tensor(t, dtype=torch.float64)) for t in times)
    noise = seen[0] / torch.hypot(a.alpha, a.sigma)
    data = (seen[0] - a.sigma * noise) / a.alpha
    torch.testing.assert_close(x, b.alpha * data + b.sigma * noise, rtol=0, atol=1e-12)
    exact = model.noise(seen[0], start)
    torch.testing.assert_close(exact, noise * sigma / (1.0 + sigma**2) ** 0.5, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", [Euler, Heun, DDIM, AdamsBashforth, DPMSolver])
def test_an_analytic_first_step_is_exact_where_only_noise_is_left(method):
    """At t = 1 of the linear path, for data of mean 0 and any variance."""
    common = {"steps": 5, "time_grid": Uniform()}
    usual = method(**common).sample(Recording(Linear(), std=0.5), E0)
    analytic = method(**common, analytic_first_step=True).sample(Recording(Linear(), std=0.5), E0)
    torch.testing.assert_close(analytic.x, usual.x, rtol=0, atol=1e-14)
    assert analytic.nfe.tolist() == [int(n) - 1 for n in usual.nfe]


def test_an_analytic_first_step_covers_empty_steps_at_the_start():
    class Coarse(Recording):
        def nearest_time(self, t):
            return torch.where(t > 20.0, torch.full_like(t, 80.0), t)

    sampler = IPNDM(steps=6, time_grid=EDMGrid(), analytic_first_step=True)
    model = Coarse(VE(), std=1.0)
    assert sampler.times(model)[:2].tolist() == [80.0, 80.0]
    sampler.sample(model, E0)
    assert max(float(t) for t in model.times) < 80.0


def test_an_analytic_first_step_does_not_go_with_a_perturbation():
    noise = StateNoise(scale=0.1)
    with pytest.raises(ValueError, match="analytic_first_step is true, but a perturbation"):
        Euler(steps=3, time_grid=Uniform(), perturbation=noise, analytic_first_step=True)
    with pytest.raises(ValueError, match="analytic_first_step"):
        EDMHeun(steps=3, time_grid=EDMGrid(), S_churn=3.0, analytic_first_step=True)
