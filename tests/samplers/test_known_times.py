"""Samplers step on the times the model knows: EDM's ``round_sigma``."""

import math
from itertools import pairwise

import pytest
import torch

from flowexp.guidance import ClassifierFree
from flowexp.models import FlowModel
from flowexp.parameterizations import (
    DataPrediction,
    EDMPreconditioning,
    IDDPMPreconditioning,
    VelocityPrediction,
    VEPreconditioning,
    VPPreconditioning,
)
from flowexp.paths import VE, VP, Cosine, Linear, Path, Trigonometric
from flowexp.samplers import (
    DDIM,
    DEIS,
    DPM2,
    IPNDM,
    RK4,
    AdamsBashforth,
    CountedModel,
    EDMGrid,
    EDMHeun,
    Euler,
    Given,
    NoiseToSignal,
)
from flowexp.samplers.base import known_times
from flowexp.samplers.diffusions import Sigma
from flowexp.samplers.sde import EulerMaruyama, SDEHeun, TweedieLast
from flowexp.seeding import SampleNoise, generator
from tests.objectives.models import TinyNetwork

F64 = torch.float64
IDDPM = IDDPMPreconditioning()
CHURN = {"S_churn": 40.0, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.003}
NOISE = SampleNoise([3, 4])
SCHEDULES = {
    "ve": VE(),
    "linear": Linear(),
    "vp": VP(),
    "trigonometric": Trigonometric(),
    "cosine": Cosine(),
}
on_every_path = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
with_and_without_churn = pytest.mark.parametrize("churn", [{}, CHURN], ids=["plain", "churn"])


class Recording(FlowModel):
    """A tiny network that keeps the times at which it is evaluated."""

    def __init__(self, schedule, parameterization=IDDPM, *, network=None):
        network = TinyNetwork() if network is None else network
        super().__init__(Path(schedule), network=network, parameterization=parameterization)
        self.times = []

    def predict(self, x_t, t, **conditions):
        self.times.append(float(t))
        return super().predict(x_t, t, **conditions)


class Silent(torch.nn.Module):
    """Says 0, so that the noise is 0 and the state does not move in sigma."""

    def forward(self, x, c_noise, **conditions):
        return torch.zeros_like(x)


def latents():
    return torch.randn(2, 6, dtype=F64, generator=generator(0, "latents"))


def reference(model, steps, *, S_churn=0.0, S_min=0.0, S_max=math.inf, S_noise=1.0):
    """EDM's algorithm 2 with rounded levels, on the VE path: samples and evaluated levels."""

    def rounded(sigma):
        return min(IDDPM.levels.tolist(), key=lambda level: abs(level - sigma))

    low, high, evaluated = max(0.002, float(IDDPM.levels[1])), 80.0, []
    ramp = [i / (steps - 1) for i in range(steps)]
    levels = [(high ** (1 / 7) + r * (low ** (1 / 7) - high ** (1 / 7))) ** 7 for r in ramp]
    levels = [*(rounded(level) for level in levels), 0.0]

    def slope(x, sigma):
        evaluated.append(sigma)
        return (x - model.denoise(x, torch.tensor(sigma, dtype=F64))) / sigma

    x = latents() * levels[0]
    for i, (level, after) in enumerate(pairwise(levels)):
        gamma = min(S_churn / steps, math.sqrt(2) - 1) if S_min <= level <= S_max else 0.0
        raised = rounded(level + gamma * level)
        x = x + math.sqrt(raised**2 - level**2) * S_noise * NOISE(i, x)
        first = slope(x, raised)
        moved = x + (after - raised) * first
        if after > 0.0:
            moved = x + (after - raised) * 0.5 * (first + slope(moved, after))
        x = moved
    return x, evaluated


@with_and_without_churn
@pytest.mark.parametrize("steps", [18, 40, 256])
def test_edm_heun_is_the_published_sampler_with_rounded_levels(steps, churn):
    """256 steps are finer than the table at small levels: steps of no length are evaluated too."""
    model = Recording(VE())
    samples = EDMHeun(steps=steps, time_grid=EDMGrid(), **churn).sample(
        model, latents(), noise=NOISE
    )
    expected, levels = reference(Recording(VE()), steps, **churn)
    assert model.times == levels
    assert set(model.times) <= set(IDDPM.levels.tolist())
    torch.testing.assert_close(samples.x, expected, rtol=0, atol=1e-4)
    assert samples.nfe.tolist() == [2 * steps - 1] * 2
    assert len(model.times) == 2 * steps - 1


@with_and_without_churn
@on_every_path
@pytest.mark.parametrize("steps", [18, 40])
def test_every_time_asked_is_in_the_table(schedule, steps, churn):
    model = Recording(schedule)
    samples = EDMHeun(steps=steps, time_grid=EDMGrid(), **churn).sample(
        model, latents(), noise=NOISE
    )
    assert set(model.times) <= set(schedule.time_at_nsr(IDDPM.levels).tolist())
    assert samples.nfe.tolist() == [2 * steps - 1] * 2


def test_the_first_level_sets_the_scale_of_the_start():
    """The level nearest to 80, which may lie above the path's largest time."""
    model, seen = Recording(VE()), []
    sampler = EDMHeun(steps=4, time_grid=EDMGrid())
    sampler.sample(model, latents(), on_step=lambda t, x: seen.append((float(t), x)))
    level = min(IDDPM.levels.tolist(), key=lambda u: abs(u - 80.0))
    assert level != 80.0
    assert seen[0][0] == model.times[0] == level
    torch.testing.assert_close(seen[0][1], level * latents())


@pytest.mark.parametrize(
    "parameterization",
    [
        EDMPreconditioning(),
        VPPreconditioning(),
        VEPreconditioning(),
        VelocityPrediction(),
        DataPrediction(),
    ],
    ids=lambda p: type(p).__name__,
)
@on_every_path
def test_networks_of_every_level_keep_the_grid_to_the_last_bit(parameterization, schedule):
    model = Recording(schedule, parameterization)
    times = EDMGrid().times(model, 40)
    assert torch.equal(known_times(model, times), times)
    Euler(steps=40, time_grid=EDMGrid()).sample(model, latents())
    assert model.times == times[:-1].tolist()


def test_last_times_below_the_models_range_stay():
    """0, and an end that is not evaluated; an end within the range moves like the rest."""
    model = Recording(VE())
    u = IDDPM.levels.tolist()
    given = torch.tensor([3.0, u[1], 0.004], dtype=F64)
    assert known_times(model, given).tolist()[1:] == [u[1], 0.004]
    given = torch.tensor([3.0, 0.6 * u[5] + 0.4 * u[6], 0.0], dtype=F64)
    assert known_times(model, given).tolist()[1:] == [u[5], 0.0]
    given = torch.tensor([3.0, 0.6 * u[5] + 0.4 * u[6]], dtype=F64)
    assert known_times(model, given).tolist()[1] == u[5]


def test_the_grid_itself_must_lie_within_the_range():
    sampler = Euler(steps=2, time_grid=Given(values=[3.0, 0.006, 0.0]))
    with pytest.raises(ValueError, match=r"t=0.006, but it is defined on \[0.0064"):
        sampler.check(Recording(VE()))


FINE = 300
METHODS = {
    "ddim": (lambda **k: DDIM(**k), FINE),
    "ddim_eta": (lambda **k: DDIM(eta=1.0, **k), FINE),
    "dpm2": (lambda **k: DPM2(**k), 2 * FINE - 1),
    "rk4": (lambda **k: RK4(**k), None),
    "adams_deis": (lambda **k: DEIS(**k), None),
    "adams_constants": (lambda **k: IPNDM(**k), None),
    "adams": (lambda **k: AdamsBashforth(order=4, **k), None),
    "adams_nsr": (lambda **k: AdamsBashforth(order=4, variable=NoiseToSignal(), **k), None),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schedule", [VE(), Trigonometric()], ids=["ve", "trigonometric"])
def test_no_method_divides_by_a_step_of_no_length(method, schedule):
    """A grid finer than the table, and a network whose noise is 0: x_t / alpha stays in place."""
    build, nfe = METHODS[method]
    model = Recording(schedule, network=Silent())
    times = known_times(model, EDMGrid().times(model, FINE))
    lengths = -times.diff()
    assert (lengths >= 0).all()
    distinct = int((lengths > 0).sum())
    assert distinct < FINE - 20
    e, eta = latents(), method == "ddim_eta"
    samples = build(steps=FINE, time_grid=EDMGrid()).sample(model, e, noise=NOISE)
    assert torch.isfinite(samples.x).all()
    if not eta:
        start = schedule.coefficients(times[0])
        torch.testing.assert_close(samples.x, e * start.sigma / start.alpha, rtol=1e-3, atol=0)
    if method.startswith("adams"):
        nfe = distinct
    if nfe is not None:
        assert samples.nfe.tolist() == [nfe] * 2


def test_adams_bashforth_passes_over_empty_steps():
    """The same samples as on the grid without its repetitions."""
    model, e = Recording(VE()), latents()
    times = known_times(model, EDMGrid().times(model, FINE)).unique().flip(0).tolist()
    # The level nearest to 80 lies above the range; 80 is moved to it.
    distinct = Given(values=[80.0, *times[1:]])
    alone = AdamsBashforth(steps=len(times) - 1, time_grid=distinct)
    fine = AdamsBashforth(steps=FINE, time_grid=EDMGrid())
    assert torch.equal(fine.sample(model, e).x, alone.sample(model, e).x)


@pytest.mark.parametrize("method", [EulerMaruyama, SDEHeun])
def test_sde_steps_lie_in_the_table(method):
    model = Recording(Linear())
    grid = EDMGrid(to_zero=False)
    sampler = method(steps=200, time_grid=grid, diffusion=Sigma(), last_step=TweedieLast())
    samples = sampler.sample(model, latents(), noise=NOISE)
    assert torch.isfinite(samples.x).all()
    assert set(model.times) <= set(Linear().time_at_nsr(IDDPM.levels).tolist())
    assert samples.nfe.tolist() == [200 if method is EulerMaruyama else 399] * 2


def test_wrappers_know_the_times_of_their_model():
    model = Recording(Linear())
    t = torch.linspace(0.05, 0.95, 7, dtype=F64)
    known = IDDPM.nearest_time(Linear(), t)
    assert not torch.equal(known, t)
    for wrapper in (model, CountedModel(model), ClassifierFree(scale=2.0).wrap(model)):
        assert torch.equal(wrapper.nearest_time(t), known)
    counted = CountedModel(model)
    counted.nearest_time(t)
    assert counted.evaluations == 0
