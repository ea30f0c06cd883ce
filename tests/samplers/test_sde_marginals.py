"""The SDE's marginals on every path: for every diffusion, last step, method and kind of output.

For Gaussian data every step is affine in the state and in its noise. So the law of a walk is known
without drawing: one row for each of the standard normal numbers it depends on, and one with zeros,
give the mean and the variance of every state exactly.
"""

import pytest
import torch
from scipy import stats

from flowexp.apps.list import options
from flowexp.config.check import check_job
from flowexp.config.instantiate import instantiate
from flowexp.parameterizations import (
    DataPrediction,
    EDMPreconditioning,
    NoisePrediction,
    ScorePrediction,
)
from flowexp.samplers import PowerGrid
from flowexp.samplers.sde import EulerLast, EulerMaruyama, MeanLast, SDEHeun, TweedieLast
from flowexp.seeding import generator
from tests.samplers.closed_forms import GaussianTruth, MixtureModel

F64 = torch.float64
MEAN, STD = 0.3, 0.5


def paths():
    """Every option of ``path`` with a Gaussian source."""
    nodes = {name: check_job("train", [f"path={name}"]).config["path"] for name in options("path")}
    built = {name: instantiate(node, key="path") for name, node in nodes.items()}
    return {name: path for name, path in built.items() if path.source.is_gaussian}


def diffusions():
    """Every option of ``sampler/diffusion`` but that of bridges, whose marginals are others."""
    names = set(options("sampler/diffusion")) - {"brownian"}
    given = {name: ["sampler=sde", f"sampler/diffusion={name}"] for name in sorted(names)}
    nodes = {
        name: check_job("train", words).config["sampler"]["diffusion"]
        for name, words in given.items()
    }
    return {name: instantiate(node, key="sampler.diffusion") for name, node in nodes.items()}


PATHS, DIFFUSIONS = paths(), diffusions()
METHODS = {"euler": EulerMaruyama, "heun": SDEHeun}
LAST_STEPS = {"mean": MeanLast(), "tweedie": TweedieLast(), "euler": EulerLast()}
HEADS = {
    "noise": NoisePrediction(),
    "score": ScorePrediction(),
    "data": DataPrediction(),
    "edm": EDMPreconditioning(),
}
every_path = pytest.mark.parametrize("path", PATHS)
every_method = pytest.mark.parametrize("method", METHODS)


def grid(path, *, t_end=None):
    """From where SBDM's diffusion is not yet large; on VE paths in EDM's spacing."""
    schedule = path.schedule
    if schedule.t_max > 1.0:
        return PowerGrid(p=7.0, t_start=schedule.t_max, t_end=t_end or schedule.t_min)
    return PowerGrid(t_start=0.9, t_end=t_end or 0.02)


def truth(path, parameterization=None):
    return GaussianTruth(path, mean=MEAN, std=STD, parameterization=parameterization)


class UnitNoise:
    """The noise 1 of step i for row i + 2, and 0 for all others."""

    def __call__(self, step, like):
        n = torch.zeros_like(like)
        n[step + 2] = 1.0
        return n


def walk(sampler, model):
    """The times (K + 1,) and all rows (K + 1, K + 2) of a walk from the true marginal."""
    path, first = model.path, sampler.times(model)[0]
    mean, std = model.marginal(first)
    sigma, seen = path.schedule.coefficients(first).sigma, []
    e = (mean / sigma).expand(sampler.steps + 2, 1).clone()
    e[1] += std / sigma
    sampler.sample(
        model, e, noise=UnitNoise(), on_step=lambda t, x: seen.append((t, x.clone().flatten()))
    )
    return torch.stack([t for t, _ in seen]), torch.stack([x for _, x in seen])


def errors(sampler, model):
    """Errors of mean and log std at every time, the mean in units of the std; (2, K + 1)."""
    times, rows = walk(sampler, model)
    mean, std = model.marginal(times)
    found = (rows[:, 1:] - rows[:, :1]).square().sum(1).sqrt()
    return torch.stack([(rows[:, 0] - mean) / std, torch.log(found / std)])


@every_path
@pytest.mark.parametrize("diffusion", DIFFUSIONS)
@every_method
def test_the_marginals_are_the_paths_at_every_time(path, diffusion, method):
    """With 40 and 80 steps within 20 %; in the limit of small steps within 3 %."""
    model, found = truth(PATHS[path]), {}
    for steps in (40, 80):
        sampler = METHODS[method](
            steps=steps,
            time_grid=grid(model.path),
            diffusion=DIFFUSIONS[diffusion],
            last_step=None,
        )
        sampler.check(model)
        found[steps] = errors(sampler, model)
    assert found[40].abs().max() < 0.2
    extrapolated = 2.0 * found[80][:, ::2] - found[40]
    assert extrapolated.abs().max() < 0.03


@every_path
@pytest.mark.parametrize("last", LAST_STEPS)
@pytest.mark.parametrize("diffusion", DIFFUSIONS)
def test_last_steps(path, last, diffusion):
    """The state at 0 is affine in that at t: the formulas of each rule, on every path."""
    model = truth(PATHS[path])
    coefficient = DIFFUSIONS[diffusion]
    sampler = EulerMaruyama(
        steps=4,
        time_grid=grid(model.path, t_end=0.05),
        diffusion=coefficient,
        last_step=LAST_STEPS[last],
    )
    times, rows = walk(sampler, model)
    t, x = times[-2], rows[-2]
    c, (mean, std) = model.path.schedule.coefficients(t), model.marginal(t)
    drift, slope = model.velocity_at(t)
    score, velocity = (mean - x) / std**2, drift + slope * x
    expected = {
        "euler": x - t * velocity,
        "mean": x - t * velocity + t * coefficient(model.path.schedule, t) * score,
        "tweedie": MEAN + c.alpha * STD**2 / std**2 * (x - mean),
    }
    assert times[-1] == 0.0
    torch.testing.assert_close(rows[-1], expected[last], rtol=1e-9, atol=1e-9)


@every_path
@pytest.mark.parametrize("last", LAST_STEPS)
def test_a_smaller_last_step_leaves_less_error(path, last):
    """From the true marginal at t_end, of which the state at 0 is an affine image."""
    model = truth(PATHS[path])
    ends = torch.tensor([4e-2, 4e-4], dtype=F64).clamp(min=model.time_range[0])
    evaluate, gaps = model.at(ends), []
    w = DIFFUSIONS["sigma"](model.path.schedule, ends)
    for i, t in enumerate(ends):
        mean, std = model.marginal(t)
        x = torch.stack([mean, mean + std])[:, None]
        out = LAST_STEPS[last](evaluate[i](x), t, w[i]).flatten()
        gaps.append(max(abs(out[0] - MEAN) / STD, abs(out[1] - out[0] - STD) / STD))
    assert gaps[1] < 0.02
    assert gaps[1] < gaps[0] / 3 or gaps[0] < 1e-3


@every_path
@pytest.mark.parametrize("head", HEADS)
@every_method
def test_every_kind_of_output_gives_the_same_samples(path, head, method):
    path = PATHS[path]
    sampler = METHODS[method](
        steps=8,
        time_grid=grid(path, t_end=max(0.05, path.schedule.t_min)),
        diffusion=DIFFUSIONS["sigma"],
        last_step=MeanLast(),
    )
    _, expected = walk(sampler, truth(path))
    _, rows = walk(sampler, truth(path, HEADS[head]))
    torch.testing.assert_close(rows, expected, rtol=1e-9, atol=1e-9)


@every_path
@pytest.mark.parametrize("name", ["sde", "sde_heun"])
def test_the_options_as_they_are(path, name):
    """250 steps, the last one of 0.04, as published: within 1 % of the std, the std within 5 %.

    The last step leaves most of that, on vp 4.6 %.
    """
    sampler = instantiate(check_job("train", [f"sampler={name}"]).config["sampler"], key="sampler")
    model = truth(PATHS[path])
    sampler.check(model)
    mean, spread = errors(sampler, model)[:, -1].tolist()
    assert abs(mean) < 0.01
    assert abs(spread) < 0.05


class Draws:
    """Normal noise of one generator per step: fast, for large batches."""

    def __call__(self, step, like):
        rng = generator(0, "sde", step)
        return torch.randn(like.shape, generator=rng, dtype=like.dtype)


WEIGHTS, MEANS, STDS = [0.3, 0.7], [[-0.8], [0.6]], [[0.3], [0.2]]


def mixture_cdf(path, t):
    """Distribution function of the state at time t for data of two clusters."""
    c = path.schedule.coefficients(torch.as_tensor(t, dtype=F64))
    alpha, sigma = float(c.alpha), float(c.sigma)

    def cdf(x):
        parts = zip(WEIGHTS, MEANS, STDS, strict=True)
        return sum(
            w * stats.norm.cdf(x, alpha * m, ((alpha * s) ** 2 + sigma**2) ** 0.5)
            for w, (m,), (s,) in parts
        )

    return cdf


CASES = [(p, d, m) for p in ("linear", "vp", "edm") for d in DIFFUSIONS for m in METHODS]
CASES += [(p, "sigma", "heun") for p in PATHS if p not in ("linear", "vp", "edm")]


@pytest.mark.statistical
@pytest.mark.parametrize(("path", "diffusion", "method"), CASES)
def test_draws_have_the_distribution_of_two_clusters(path, diffusion, method):
    """4000 draws, 150 steps, Kolmogorov-Smirnov at half time, three quarters and the end.

    Each of the 135 comparisons fails at p < 1e-5: a false alarm in one seed of 700.
    """
    path, steps = PATHS[path], 150
    sampler = METHODS[method](
        steps=steps, time_grid=grid(path), diffusion=DIFFUSIONS[diffusion], last_step=None
    )
    model = MixtureModel(path, WEIGHTS, MEANS, STDS)
    first = sampler.times(model)[0]
    c = path.schedule.coefficients(first)
    rng = generator(0, "start")
    which = torch.multinomial(torch.tensor(WEIGHTS), 4000, replacement=True, generator=rng)
    x, e = torch.randn(2, 4000, 1, generator=rng, dtype=F64)
    x = torch.tensor(MEANS, dtype=F64)[which] + torch.tensor(STDS, dtype=F64)[which] * x
    seen = []
    sampler.sample(
        model,
        (c.alpha * x + c.sigma * e) / c.sigma,
        noise=Draws(),
        on_step=lambda t, x: seen.append((float(t), x.clone())),
    )
    for i in (steps // 2, 3 * steps // 4, steps):
        t, state = seen[i]
        p = stats.kstest(state.flatten().numpy(), mixture_cdf(path, t)).pvalue
        assert p > 1e-5, f"at t={t:g}"
