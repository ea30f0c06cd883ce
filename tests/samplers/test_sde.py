"""The SDE sampler: its deterministic limit, order, refusals; see also test_sde_marginals."""

import re

import pytest
import torch

from flowexp.config.check import check
from flowexp.paths import VE, VP, Cosine, Linear, Path, Trigonometric
from flowexp.requirements import Parts
from flowexp.samplers.diffusions import SBDM, Constant, Sigma
from flowexp.samplers.noise_grids import EDMGrid, IDDPMGrid, VPGrid
from flowexp.samplers.sde import EulerLast, EulerMaruyama, MeanLast, SDEHeun, TweedieLast
from flowexp.samplers.time_grids import Given, Natural, PowerGrid, Uniform
from flowexp.seeding import SampleNoise, generator
from tests.samplers.closed_forms import MixtureModel

MEAN, STD = 0.3, 0.5


class Draws:
    """Normal noise of one generator per step: fast, for large batches."""

    def __call__(self, step, like):
        rng = generator(0, "sde", step)
        return torch.randn(like.shape, generator=rng, dtype=like.dtype)


def gaussian_model(schedule, **options):
    return MixtureModel(Path(schedule, **options), [1.0], [[MEAN]], [[STD]])


def source(n):
    return torch.randn(n, 1, generator=generator(0, "latents"), dtype=torch.float64)


def exact_flow(schedule, e, t_end):
    """The probability-flow ODE's state at t_end from ``sigma(t_max) e``, for Gaussian data."""
    c = schedule.coefficients(torch.tensor([schedule.t_max, t_end], dtype=torch.float64))
    start, end = torch.sqrt((c.alpha * STD) ** 2 + c.sigma**2)
    return c.alpha[1] * MEAN + end / start * (c.sigma[0] * e - c.alpha[0] * MEAN)


@pytest.mark.parametrize(
    ("method", "order"), [(EulerMaruyama, 1), (SDEHeun, 2)], ids=["euler", "heun"]
)
@pytest.mark.parametrize("schedule", [Linear(), Trigonometric(), VP()], ids=repr)
def test_without_diffusion_it_is_the_ode_with_the_solvers_order(method, order, schedule):
    e, model = source(16), gaussian_model(schedule)

    def error(steps):
        sampler = method(steps=steps, time_grid=Uniform(t_end=0.2), diffusion=Constant(scale=0.0))
        x = sampler.sample(model, e, noise=Draws()).x
        return (x - exact_flow(schedule, e, 0.2)).abs().max().item()

    assert error(32) / error(64) == pytest.approx(2.0**order, rel=0.25)


@pytest.mark.parametrize(
    ("method", "last", "nfe"),
    [(EulerMaruyama, MeanLast(), 10), (SDEHeun, MeanLast(), 19), (EulerMaruyama, None, 10)],
)
def test_evaluations_are_counted(method, last, nfe):
    model = gaussian_model(Linear())
    end = 0.04 if last else 0.0
    sampler = method(steps=10, time_grid=Uniform(t_end=end), diffusion=Sigma(), last_step=last)
    seen = []
    samples = sampler.sample(
        model, source(3), noise=Draws(), on_step=lambda t, x: seen.append(t.item())
    )
    assert samples.nfe.tolist() == [nfe] * 3
    assert len(model.times) == nfe
    assert len(seen) == 11
    assert seen[0] == 1.0
    assert seen[-1] == 0.0


def test_last_steps_agree_on_how_the_ode_ends():
    """Without diffusion Mean is Euler's step; Tweedie is the denoised state, equal on linear."""
    out = {}
    for last in (MeanLast(), TweedieLast(), EulerLast()):
        sampler = EulerMaruyama(
            steps=20,
            time_grid=Uniform(t_end=0.04),
            diffusion=Constant(scale=0.0),
            last_step=last,
        )
        out[type(last)] = sampler.sample(gaussian_model(Linear()), source(4), noise=Draws()).x
    torch.testing.assert_close(out[MeanLast], out[EulerLast])
    torch.testing.assert_close(out[TweedieLast], out[EulerLast])


def test_samples_do_not_depend_on_the_batch():
    sampler = SDEHeun(
        steps=5, time_grid=Uniform(t_end=0.1), diffusion=Sigma(), last_step=MeanLast()
    )
    e, model = source(4), gaussian_model(Linear())
    whole = sampler.sample(model, e, noise=SampleNoise([1, 2, 3, 4])).x
    part = sampler.sample(model, e[1:3], noise=SampleNoise([2, 3])).x
    torch.testing.assert_close(whole[1:3], part)


def test_wrong_combinations_are_refused():
    grid = Uniform(t_end=0.04)
    sampler = EulerMaruyama(steps=10, time_grid=grid, diffusion=Sigma(), last_step=MeanLast())
    with pytest.raises(ValueError, match=r"EulerMaruyama.*StudentT"):
        sampler.sample(gaussian_model(VE(), D=128), source(2), noise=Draws())
    with pytest.raises(ValueError, match="noise is None"):
        sampler.sample(gaussian_model(Linear()), source(2))
    unbounded = EulerMaruyama(steps=10, time_grid=grid, diffusion=SBDM(), last_step=MeanLast())
    with pytest.raises(ValueError, match=r"SBDM.*infinite.*Linear"):
        unbounded.sample(gaussian_model(Linear()), source(2), noise=Draws())
    to_zero = EulerMaruyama(
        steps=10, time_grid=Uniform(t_end=0.0), diffusion=Sigma(), last_step=MeanLast()
    )
    with pytest.raises(ValueError, match="MeanLast"):
        to_zero.sample(gaussian_model(Linear()), source(2), noise=Draws())
    with pytest.raises(ValueError, match="steps is 1"):
        EulerMaruyama(steps=1, time_grid=grid, diffusion=Sigma(), last_step=MeanLast())
    with pytest.raises(ValueError, match="scale"):
        Sigma(scale=-1.0)


def sbdm(steps, time_grid=None):
    return EulerMaruyama(
        steps=steps,
        time_grid=time_grid or Uniform(t_end=0.04),
        diffusion=SBDM(),
        last_step=MeanLast(),
    )


@pytest.mark.parametrize(
    ("schedule", "steps", "problem"),
    [(Linear(), 250, "infinite at the start"), (Cosine(), 250, "is 3.85, above 2")],
    ids=repr,
)
def test_a_diffusion_too_large_at_the_start_is_told_where_to_start(schedule, steps, problem):
    model = gaussian_model(schedule)
    with pytest.raises(ValueError, match=problem) as refusal:
        sbdm(steps).check(model)
    given = re.search(r"t_start=(\S+) sampler.time_grid.t_end=(\S+)", str(refusal.value))
    later = PowerGrid(t_start=float(given[1]), t_end=float(given[2]))
    sbdm(steps, later).check(model)


def test_an_unstable_step_that_no_later_start_helps_needs_more_steps():
    with pytest.raises(ValueError, match="take more steps or a smaller") as refusal:
        sbdm(3).check(gaussian_model(VP()))
    assert "t_start" not in str(refusal.value)
    sbdm(10).check(gaussian_model(VP()))
    # what is refused: the variance of the state, 1 on this path, becomes many times larger
    seen = []
    x = source(2000)
    sbdm(3).sample(gaussian_model(VP()), x, noise=Draws(), on_step=lambda t, x: seen.append(x))
    assert seen[1].var() > 10.0


ENDING_AT_ZERO = [
    (EDMGrid(), EDMGrid(to_zero=False), "sampler.time_grid.to_zero=false"),
    (VPGrid(), VPGrid(to_zero=False), "sampler.time_grid.to_zero=false"),
    (IDDPMGrid(), IDDPMGrid(to_zero=False), "sampler.time_grid.to_zero=false"),
    (Natural(), Natural(t_end=0.04), "sampler.time_grid.t_end above 0"),
    (PowerGrid(t_end=0.0), PowerGrid(), "sampler.time_grid.t_end=null"),
    (Given(values=[0.9, 0.5, 0.0]), Given(values=[0.9, 0.5]), "sampler.time_grid.values above 0"),
]


@pytest.mark.parametrize(("grid", "other", "remedy"), ENDING_AT_ZERO, ids=lambda x: repr(x)[:9])
def test_a_grid_that_ends_at_zero_is_told_how_to_end_above(grid, other, remedy):
    model = gaussian_model(Linear())

    def sampler(time_grid):
        return SDEHeun(steps=2, time_grid=time_grid, diffusion=Sigma(), last_step=MeanLast())

    (unmet,) = sampler(grid).needs(Parts())
    assert unmet.key == ".time_grid"
    assert remedy in unmet.remedy
    assert list(sampler(other).needs(Parts())) == []
    times = sampler(other).times(model)
    assert len(times) == 3
    assert times[-2] > 0.0
    alone = SDEHeun(steps=2, time_grid=grid, diffusion=Sigma(), last_step=None)
    assert list(alone.needs(Parts())) == []


@pytest.mark.parametrize("name", ["edm", "vp", "iddpm", "log_snr"])
def test_the_config_check_refuses_a_grid_that_ends_at_zero(name):
    given = ["sampler=sde", f"sampler/time_grid={name}", "path=linear", "parameterization=velocity"]
    (problem,) = check("train", given).problems
    assert problem.key == "sampler.time_grid"
    remedy = problem.remedy.removeprefix("Set ").removesuffix(".")
    assert check("train", [*given, remedy]).problems == []
