"""Flow matching against torchcfm, SiT and facebookresearch/flow_matching.

Their time runs from the source to the data: ``t = 1 - t_ref``, ``v = -u_ref``.
"""

import re

import numpy as np
import pytest
import torch

from flowexp.couplings import Pairs, ShortestPaths
from flowexp.couplings.transport import (
    pairs_from_plan,
    sinkhorn_plan,
    squared_cost,
)
from flowexp.objectives import Regression, SquaredL2, weightings
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import (
    VP,
    BrownianNoise,
    ConstantNoise,
    Linear,
    LinearVP,
    Path,
    Polynomial,
    Prediction,
    Trigonometric,
    bridge_point,
    edm_sigmas,
)
from flowexp.paths.conversions import FromNoise, FromVelocity
from flowexp.samplers import RK4, Uniform, diffusions, sde
from flowexp.timesteps import CosMap, LogitNormal, LogNormal, Mode
from tests.goldens.harness import dispatch, parametrize
from tests.objectives.models import Fixed
from tests.samplers.closed_forms import MixtureModel

TIGHT = {"rtol": 1e-7, "atol": 1e-9}
SDE = {"rtol": 1e-4, "atol": 1e-4}
SIT_PATHS = {"linear": Linear(), "gvp": Trigonometric(), "vp": VP()}


def load(case):
    with np.load(case, allow_pickle=False) as stored:
        return {key: torch.from_numpy(np.array(stored[key])) for key in stored.files}


def close(actual, expected, *, rtol=TIGHT["rtol"], atol=TIGHT["atol"]):
    expected = expected.to(torch.float64)
    torch.testing.assert_close(
        actual.to(torch.float64).reshape(expected.shape), expected, rtol=rtol, atol=atol
    )


def check_cfm_paths(case):
    g = load(case)
    x, e, t, eps = g["x"], g["e"], g["t_flowexp"], g["eps"]
    seen = {"x", "e", "eps", "t_ref", "t_flowexp"}
    bridges = {
        "icfm": (Linear(), ConstantNoise(g["icfm_sigma"].item())),
        "sb": (Linear(), BrownianNoise(g["sb_sigma"].item())),
        "vp": (Trigonometric(), ConstantNoise(g["vp_sigma"].item())),
    }
    for name, (schedule, noise) in bridges.items():
        point = bridge_point(Path(schedule), noise, x=x, e=e, t=t, eps=eps)
        close(point.x_t, g[f"{name}_xt"])
        close(point.velocity, g[f"{name}_v_flowexp"])
        close(-point.velocity, g[f"{name}_ut_ref"])
        close(noise.std(t), g[f"{name}_sigma_t"])
        if f"{name}_lambda" in g:
            close(noise.score_weight(t), g[f"{name}_lambda"])
        seen |= {f"{name}_{k}" for k in ("xt", "v_flowexp", "ut_ref", "sigma_t", "sigma", "lambda")}
    path = Path(Linear(sigma_min=g["fm_sigma"].item()))
    point = path.point(x, e, t)
    close(point.x_t, g["fm_xt"])
    close(point.velocity, g["fm_v_flowexp"])
    close(-point.velocity, g["fm_ut_ref"])
    close(path.schedule.coefficients(t).sigma, g["fm_sigma_t"])
    seen |= {f"fm_{k}" for k in ("xt", "v_flowexp", "ut_ref", "sigma_t", "sigma")}
    assert set(g) <= seen, f"arrays without a check: {set(g) - seen}"


def scheduler_named(name):
    if found := re.fullmatch(r"poly([0-9.]+)", name):
        return Polynomial(n=float(found[1]), t_max=1.0)
    return {
        "condot": Linear(),
        "vp": VP(),
        "linvp": LinearVP(),
        "cosine": Trigonometric(),
    }[name]


def check_fb_schedulers(case):
    g = load(case)
    x, e, t, v = g["x"], g["e"], 1.0 - g["t_ref"], -g["v_ref"]
    names = {key.removesuffix("_alpha") for key in g if re.fullmatch(r"[^_]+_alpha", key)}
    seen = {"t_ref", "e", "x", "v_ref"}
    for name in names:
        path = Path(scheduler_named(name))
        c = path.schedule.coefficients(t)
        point = path.point(x, e, t)
        of_v = Prediction.of_velocity(path, point.x_t, t, v)
        of_x = Prediction.of_data(path, point.x_t, t, x)
        of_e = Prediction.of_noise(path, point.x_t, t, e)
        ours = {
            "alpha": c.alpha,
            "sigma": c.sigma,
            "dalpha": -c.d_alpha,
            "dsigma": -c.d_sigma,
            "snr_inv": 1.0 - path.schedule.time_at_nsr(c.sigma / c.alpha),
            "xt": point.x_t,
            "v_from_x": -of_x.velocity,
            "v_from_e": -of_e.velocity,
            "x_from_v": of_v.data,
            "e_from_v": of_v.noise,
            "e_from_x": of_x.noise,
            "x_from_e": of_e.data,
        }
        for key, value in ours.items():
            close(value, g[f"{name}_{key}"])
            seen.add(f"{name}_{key}")
    assert names
    assert set(g) <= seen, f"arrays without a check: {set(g) - seen}"


def check_fb_edm_time_grid(case):
    g = load(case)
    for key, expected in g.items():
        steps = int(re.fullmatch(r"t_ref_nfe(\d+)", key)[1])
        assert len(expected) == steps + 1
        sigmas = edm_sigmas(steps, sigma_min=0.002, sigma_max=80.0, rho=7.0)
        close(1.0 - Linear().time_at_nsr(sigmas), expected)


def check_gaussian_exact_flow(case):
    """The exact trajectory solves our ODE: the model's velocity is its slope, and RK4 finds it."""
    g = load(case)
    z, times, expected = g["z"], g["t_flowexp"], g["x_t"]
    n = z[0].numel()
    mean, std = g["data_mean"].item(), g["data_std"].item()
    model = MixtureModel(Path(Linear()), [1.0], [[mean] * n], [[std] * n])
    spread = torch.sqrt((1.0 - times) ** 2 * std**2 + times**2)
    for t, s, state in zip(times, spread, expected, strict=True):
        slope = (t - (1.0 - t) * std**2) / s
        close(model.velocity(state, t), slope * z - mean)
        close((1.0 - t) * mean + s * z, state)
    grid = Uniform(t_end=times.min().item())
    end = RK4(steps=200, time_grid=grid).sample(model, z).x
    torch.testing.assert_close(end, expected[times.argmin()], rtol=1e-6, atol=1e-6)


def check_ot_plan(case):
    g = load(case)
    e, x = g["e"], g["x"]
    n = len(e)
    cost = squared_cost(e, x)
    close(cost, g["cost"])
    permutation = ShortestPaths().permutation(cost)
    assert torch.equal(permutation, g["perm"])
    plan = torch.zeros_like(cost)
    plan[torch.arange(n), permutation] = 1.0 / n
    close(plan, g["plan_exact"])
    close((plan * cost).sum(), g["ot_cost_mean"])
    close((plan * cost).sum().sqrt(), g["w2"])
    close(cost.mean(), g["indep_cost_mean"])
    entropic = sinkhorn_plan(cost, reg=g["sinkhorn_reg"].item())
    close(entropic, g["plan_sinkhorn"], rtol=0.0, atol=1e-6)
    # numpy's choice with probabilities inverts the same distribution function
    uniforms = torch.from_numpy(np.random.RandomState(7).random_sample(n))
    i, j = pairs_from_plan(plan, uniforms)
    assert torch.equal(i, g["sample_i"])
    assert torch.equal(j, g["sample_j"])
    close(torch.tensor(len(i.unique()) / n), g["unique_fraction"])


def check_timestep_densities(case):
    g = load(case)
    for key, expected in g.items():
        if key not in {"t", "u", "normals"}:
            close(density_quantity(key, g), expected)


def density_quantity(key, g):
    """What an array of ``timestep_densities`` holds, by its name."""
    number = r"(-?[0-9.e]+)"
    if key == "skewed_fb_t_ref":
        u = torch.special.ndtr(g["normals"])
        t = Linear().time_at_nsr(LogNormal(P_mean=-1.2, P_std=1.2).quantile(u))
        return (1.0 - t).clamp(1e-4, 1.0)
    if found := re.fullmatch(rf"logitnormal_(t_of_u_)?m{number}_s{number}", key):
        law = LogitNormal(mean=float(found[2]), std=float(found[3]))
        return law.quantile(g["u"]) if found[1] else law.pdf(g["t"])
    if found := re.fullmatch(rf"mode_t_of_u_s{number}", key):
        # the published map decreases in u
        return Mode(s=float(found[1])).quantile(1.0 - g["u"])
    if found := re.fullmatch(rf"mode_s{number}_finv", key):
        return 1.0 - Mode(s=float(found[1])).cdf(g["t"])
    if found := re.fullmatch(rf"mode_s{number}", key):
        return Mode(s=float(found[1])).pdf(g["t"])
    if key == "cosmap":
        return CosMap().pdf(g["t"])
    if key == "cosmap_t_of_u":
        return CosMap().quantile(g["u"])
    pytest.fail(f"no check for the array {key}")


FORMS = {
    "constant": diffusions.Constant,
    "SBDM": diffusions.SBDM,
    "sigma": diffusions.Sigma,
    "linear": diffusions.Linear,
    "decreasing": diffusions.Decreasing,
    "increasing-decreasing": diffusions.IncreasingDecreasing,
    "inccreasing-decreasing": diffusions.IncreasingDecreasing,
}


def form_named(name, *, scale):
    return FORMS[name.replace("_", "-")](scale=scale)


def check_sit_conversions(case):
    g = load(case)
    path = Path(SIT_PATHS[case.stem.split("_")[1]])
    t, v, score = g["t_flowexp"], g["v_flowexp"], g["score_in"]
    c = path.schedule.coefficients(t)
    point = path.point(g["x"], g["e"], t)
    of_v = Prediction.of_velocity(path, point.x_t, t, v)
    sigma = c.sigma[:, None, None, None]
    of_score = Prediction.of_noise(path, point.x_t, t, -sigma * score)
    scale = g["diffusion_norm"].item()
    # that key has norm 1 whatever the case's diffusion_norm, which scales the w_* keys
    w = form_named("sigma", scale=1.0)(path.schedule, t)[:, None, None, None]
    ours = {
        "alpha": c.alpha,
        "sigma": c.sigma,
        "d_alpha_dt": -c.d_alpha,
        "d_sigma_dt": -c.d_sigma,
        "xt": point.x_t,
        "ut": -point.velocity,
        "drift_mean": FromNoise(c).velocity.state[:, None, None, None] * point.x_t,
        "drift_var": diffusions.SBDM()(path.schedule, t),
        "score_from_v": of_v.score,
        "noise_from_v": of_v.noise,
        "v_from_score": -of_score.velocity,
        "sde_drift_sigma": w * of_v.score - of_v.velocity,
    }
    for key in g:
        if key.startswith("w_"):
            ours[key] = form_named(key.removeprefix("w_"), scale=scale)(path.schedule, t)
    close(FromVelocity(c).velocity.output, torch.ones_like(t))
    for key, value in ours.items():
        close(value, g[key])
    inputs = {"t_ref", "t_flowexp", "e", "x", "v_ref", "v_flowexp", "score_in", "diffusion_norm"}
    assert set(g) <= set(ours) | inputs, f"arrays without a check: {set(g) - set(ours) - inputs}"


SIT_WEIGHTS = {
    "none": weightings.Uniform(),
    "velocity": weightings.VelocityOfNoise(),
    "likelihood": weightings.LikelihoodOfNoise(),
}


def check_sit_loss(case):
    """Heads in reference sign; the score head is the noise head with ``e = -sigma s``.

    A loss L that is a multiple of the squared error has the gradient ``2 L error / |error|^2``.
    """
    g = load(case)
    schedule = SIT_PATHS[case.stem.split("_")[2]]
    path, t = Path(schedule), 1.0 - g["t_ref"]
    sigma = schedule.coefficients(t).sigma[:, None, None, None]
    out = g["model_out"].requires_grad_()
    heads = {
        "velocity": ("velocity", -out),
        "noise": ("noise", out),
        "score": ("noise", -sigma * out),
    }
    velocity = path.point(g["x"], g["e"], t).velocity
    truth = {"velocity": -velocity, "noise": g["e"], "score": -g["e"] / sigma}
    pairs = Pairs(x=g["x"], e=g["e"], conditions={})
    for key in g:
        if not key.startswith("loss_"):
            continue
        _, head, weight = key.split("_")
        kind, output = heads[head]
        # SiT's velocity head ignores the weight.
        weighting = SIT_WEIGHTS["none" if head == "velocity" else weight]
        objective = Regression(kind, weighting=weighting, premetric=SquaredL2())
        loss = objective.loss(Fixed(path, kind, output), pairs, t, rng=torch.Generator())
        close(loss.per_sample, g[key])
        (gradient,) = torch.autograd.grad(loss.per_sample.sum(), out, retain_graph=True)
        error = (out - truth[head]).detach()
        scale = 2.0 * g[key] / error.flatten(1).square().sum(1)
        close(gradient, scale[:, None, None, None] * error)
    if "interval_velocity" in g:
        low, high = VelocityPrediction().time_range(schedule)
        close(torch.tensor([1.0 - high, 1.0 - low]), g["interval_velocity"], rtol=0, atol=1e-7)
    # The reference keeps 1e-3 away from both ends with these heads, ours from alpha = 1e-3.
    others = {"t_ref", "e", "x", "model_out", "interval_velocity", "interval_noise"}
    unknown = {k for k in g if not k.startswith("loss_")} - others - {"interval_score"}
    assert not unknown, f"arrays without a check: {unknown}"


LAST_STEPS = {"Mean": sde.MeanLast(), "Tweedie": sde.TweedieLast(), "Euler": sde.EulerLast()}
METHODS = {"Euler": sde.EulerMaruyama, "Heun": sde.SDEHeun}


class StoredNoise:
    """The normal draws that a case file gives, by step."""

    def __init__(self, draws):
        self.draws = draws

    def __call__(self, step, like):
        return self.draws[step].to(like.dtype)


SDE_NAME = re.compile(r"sit_sde_(?:(Linear|GVP|VP)_)?(.+)_(Mean|None|Tweedie|Euler)_(Euler|Heun)")


def check_sit_sde(case):
    g = load(case)
    path_name, form, last, method = SDE_NAME.fullmatch(case.stem).groups()
    schedule = SIT_PATHS[(path_name or "linear").lower()]
    n = g["z"][0].numel()
    mean, std = g["data_mean"].item(), g["data_std"].item()
    start = 1.0 - g["t_grid_ref"][0].to(torch.float64)
    model = MixtureModel(
        Path(schedule),
        [1.0],
        [[mean] * n],
        [[std] * n],
        time_range=(schedule.t_min, start.item()),
    )
    number = int(g["num_steps"])
    # Without a last step, the reference ends at t_ref = 1, on VP 1e-3 before it.
    grid = Uniform(t_end=1.0 - g["t_grid_ref"][-1].item())
    close(1.0 - grid.times(model, number - 1), g["t_grid_ref"], **SDE)
    last_step = LAST_STEPS.get(last)
    norm = g["diffusion_norm"].item() if "diffusion_norm" in g else 1.0
    sampler = METHODS[method](
        # The reference counts the missing step of "None" too.
        steps=number if last_step is not None else number - 1,
        time_grid=grid,
        diffusion=form_named(form, scale=norm),
        last_step=last_step,
    )
    seen = []
    # The reference starts from z itself, ours from sigma(t_0) e.
    sampler.sample(
        model,
        g["z"] / schedule.coefficients(start).sigma,
        noise=StoredNoise(g["noise"]),
        on_step=lambda t, x: seen.append(x.clone()),
    )
    trajectory = torch.stack(seen[1:] if last_step is not None else [*seen[1:], seen[-1]])
    close(trajectory, g["traj"], **SDE)


CHECKS = {
    "cfm_paths": check_cfm_paths,
    "fb_schedulers": check_fb_schedulers,
    "fb_edm_time_grid": check_fb_edm_time_grid,
    "gaussian_exact_flow": check_gaussian_exact_flow,
    "ot_plan": check_ot_plan,
    "timestep_densities": check_timestep_densities,
    "sit_linear": check_sit_conversions,
    "sit_gvp": check_sit_conversions,
    "sit_vp": check_sit_conversions,
    "sit_loss": check_sit_loss,
    "sit_sde": check_sit_sde,
}


@parametrize("flow-matching")
def test_golden(case):
    dispatch(case, CHECKS)
