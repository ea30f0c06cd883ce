"""Fixed-step, adaptive and library samplers on the exact model of a Gaussian mixture."""

from pathlib import Path as File

import numpy as np
import pytest
import torch

from flowexp.likelihood import ExactTrace, Hutchinson, log_likelihood
from flowexp.paths import VE, Coefficients, Linear, Path, Schedule
from flowexp.samplers import (
    DDIM,
    DPM2,
    RK4,
    AdamsBashforth,
    DormandPrince,
    DPMSolver,
    EDMGrid,
    Euler,
    Given,
    Heun,
    Heun3,
    Midpoint,
    ThreeEighths,
    Uniform,
)
from tests.goldens.harness import dispatch, parametrize
from tests.samplers.closed_forms import MixtureModel

TORCHDIFFEQ = {
    "euler": Euler,
    "midpoint": Midpoint,
    "heun2": Heun,
    "heun3": Heun3,
    "rk4": ThreeEighths,
}
# torchdiffeq's explicit_adams is in the file to show that it diverges; flowexp has no such method.
DIVERGING = {"explicit_adams"}


def tensor(data, key):
    return torch.from_numpy(np.asarray(data[key], dtype=np.float64))


def mixture(data, schedule, **kwargs):
    return MixtureModel(Path(schedule), data["gmm_w"], data["gmm_m"], data["gmm_c"], **kwargs)


def close(actual, expected, tolerance):
    scale = expected.abs().max().clamp(min=1.0)
    torch.testing.assert_close(
        actual, expected.to(actual.dtype), rtol=0.0, atol=tolerance * float(scale)
    )


def trajectory(sampler, model, e, **kwargs):
    states = []
    samples = sampler.sample(model, e, on_step=lambda t, x: states.append((t, x)), **kwargs)
    return samples, states


def check_linear_fixed(case):
    data = np.load(case)
    e, grid = tensor(data, "x_src"), Given(values=data["grid"].tolist())
    steps = len(data["grid"]) - 1
    methods = {key.removeprefix("tde_") for key in data.files if key.startswith("tde_")} - DIVERGING
    assert methods
    for method in methods:
        full = {} if method == "euler" else {"final_euler": False}
        sampler = TORCHDIFFEQ[method](steps=steps, time_grid=grid, **full)
        samples, states = trajectory(sampler, mixture(data, Linear()), e)
        close(torch.stack([x for _, x in states]), tensor(data, f"tde_{method}"), 1e-10)
        assert samples.nfe.unique().tolist() == [int(data[f"nfe_{method}"])]
    ends = {"classic_rk4": RK4(steps=steps, time_grid=grid, final_euler=False)}
    for order in (2, 3, 4):
        ends[f"ab{order}"] = AdamsBashforth(steps=steps, time_grid=grid, order=order)
    for name, sampler in ends.items():
        x = sampler.sample(mixture(data, Linear()), e).x
        close(x, tensor(data, f"{name}_end"), 1e-10)
    exact = DormandPrince(rtol=1e-12, atol=1e-12, max_steps=10_000)
    close(exact.sample(mixture(data, Linear()), e).x, tensor(data, "x_exact"), 1e-9)


def check_linear_rk45(case):
    data = np.load(case)
    e = tensor(data, "x_src")
    settings = [key.removeprefix("nfev_") for key in data.files if key.startswith("nfev_")]
    assert settings
    for setting in settings:
        tolerance, end = (float(v) for v in setting.removeprefix("tol").split("_end"))
        model = mixture(data, Linear(), time_range=(end, 1.0))
        sampler = DormandPrince(
            rtol=tolerance, atol=tolerance, per_sample=False, denoise_at_end=False
        )
        samples, states = trajectory(sampler, model, e)
        close(samples.x, tensor(data, f"x_{setting}"), 1e-9)
        assert samples.nfe.unique().tolist() == [int(data[f"nfev_{setting}"])]
        close(torch.stack([t for t, _ in states]), tensor(data, f"t_{setting}"), 1e-9)


def check_torchdiffeq_dopri5(case):
    """odeint(velocity, x_src, t = [1, 0], method="dopri5") of torchdiffeq 0.2.5 in float64.

    ``single`` is the batch's first sample alone; t are the ends of the accepted steps, of which the
    last lies beyond 0 and the state at 0 is interpolated.
    """
    data = np.load(case)
    settings = [key.removeprefix("nfe_") for key in data.files if key.startswith("nfe_")]
    assert settings
    for setting in settings:
        kind, _, tolerance = setting.partition("_tol")
        e = tensor(data, "x_src")[: 1 if kind == "single" else None]
        given = {"rtol": float(tolerance), "atol": float(tolerance), "per_sample": False}
        sampler = DormandPrince(**given, control="torchdiffeq")
        samples, states = trajectory(sampler, mixture(data, Linear()), e)
        close(samples.x, tensor(data, f"x_{setting}"), 1e-10)
        assert samples.nfe.tolist() == [int(data[f"nfe_{setting}"])] * len(e)
        times = tensor(data, f"t_{setting}")
        assert times[-1] <= 0.0
        close(torch.stack([t for t, _ in states[1:]]), times.clamp(min=0.0), 1e-8)


def check_ve_kdiffusion(case):
    data = np.load(case)
    n = int(data["n"])
    levels = {"sigma_min": float(data["sigma_min"]), "sigma_max": float(data["sigma_max"])}
    grid = EDMGrid(rho=float(data["rho"]), **levels)
    schedule = VE(t_min=levels["sigma_min"], t_max=levels["sigma_max"])
    model = mixture(data, schedule)
    sigmas = tensor(data, "sigmas")
    close(grid.times(model, n), sigmas, 1e-12)
    e = tensor(data, "x_T") / sigmas[0]
    # k-diffusion lowers the order of 2M in the step to 0 only
    multistep = DPMSolver(steps=n, time_grid=grid, order=2, lower_order_final=False)
    samplers = {
        "euler": (Euler(steps=n, time_grid=grid), 1e-9),
        "heun": (Heun(steps=n, time_grid=grid), 1e-9),
        "dpm_2": (DPM2(steps=n, time_grid=grid), 1e-9),
        "dpmpp_2m": (multistep, 1e-9),
        "lms": (AdamsBashforth(steps=n, time_grid=grid, order=4), 1e-6),
        "lms_order2": (AdamsBashforth(steps=n, time_grid=grid, order=2), 1e-6),
    }
    for name, (sampler, tolerance) in samplers.items():
        close(sampler.sample(model, e).x, tensor(data, name), tolerance)


def check_diffusers_euler(case):
    data = np.load(case)
    n, shift = int(data["n"]), float(data["shift"])
    model = mixture(data, Linear())
    _, states = trajectory(
        Euler(steps=n, time_grid=Given(values=data["sigmas"].tolist())),
        model,
        tensor(data, "x_src"),
    )
    close(torch.stack([x for _, x in states]), tensor(data, "x_states"), 2e-5)
    # diffusers shifts twice: once to find its smallest sigma, once the uniform grid down to it.
    smallest = Uniform(t_end=0.0).times(model, 1000)[-2]
    twice = [shift * u / (1.0 + (shift - 1.0) * u) for u in (float(smallest), 1.0)]
    u = torch.linspace(twice[1], twice[0], n, dtype=torch.float64)
    close(shift * u / (1.0 + (shift - 1.0) * u), tensor(data, "sigmas")[:-1], 1e-6)


class TabulatedVP(Schedule):
    """DDPM's discrete levels at t = label + 1; the data at t = 0. DDIM needs no derivatives."""

    def __init__(self, alphas_cumprod):
        super().__init__(1.0, float(len(alphas_cumprod)))
        one = torch.ones(1, dtype=torch.float64)
        self.alpha_bar = torch.cat([one, torch.as_tensor(alphas_cumprod, dtype=torch.float64)])

    def coefficients(self, t):
        alpha_bar = self.alpha_bar[t.round().to(torch.int64)]
        # Any derivatives with a positive Wronskian serve: data and noise do not depend on them.
        alpha, sigma = alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()
        return Coefficients(alpha, sigma, -sigma, alpha, torch.ones_like(alpha))

    def time_at_nsr(self, nsr):
        raise NotImplementedError


def check_diffusers_ddim(case):
    data = np.load(case)
    times = [float(label) + 1.0 for label in data["timesteps"]] + [0.0]
    model = mixture(data, TabulatedVP(data["alphas_cumprod"]))
    first = model.path.schedule.coefficients(torch.tensor(times[0])).sigma
    sampler = DDIM(steps=int(data["n"]), time_grid=Given(values=times))
    _, states = trajectory(sampler, model, tensor(data, "x_src") / first)
    close(torch.stack([x for _, x in states]), tensor(data, "x_states"), 2e-5)


def check_likelihood(case):
    data = np.load(case)
    x, tolerance = tensor(data, "data"), float(data["tol"])
    model = mixture(data, Linear(), time_range=(0.0, 1.0 - float(data["eps_time"])))
    options = {"rtol": tolerance, "atol": tolerance, "per_sample": False}
    by_probe = Hutchinson(tensor(data, "hutch_eps"))
    estimated = log_likelihood(model, x, divergence=by_probe, **options)
    exact = log_likelihood(model, x, divergence=ExactTrace(), **options)
    close(estimated.bits_per_dim(), tensor(data, "bpd_hutchinson"), 1e-5)
    close(exact.bits_per_dim(), tensor(data, "bpd_exact_trace"), 1e-5)
    close(exact.bits_per_dim(), tensor(data, "bpd_true"), 1e-3)
    # The file's latents are the states where the integration stopped, a hair before sigma = 1.
    close(estimated.latents * (1.0 - float(data["eps_time"])), tensor(data, "z"), 1e-5)
    assert estimated.nfe.unique().tolist() == [int(data["nfe"])]


CHECKS = {
    "likelihood": check_likelihood,
    "linear_fixed": check_linear_fixed,
    "linear_rk45": check_linear_rk45,
    "torchdiffeq_dopri5": check_torchdiffeq_dopri5,
    "ve_kdiffusion": check_ve_kdiffusion,
    "diffusers_euler1_": check_diffusers_euler,
    "diffusers_ddim1_": check_diffusers_ddim,
}


@parametrize("ode-solvers")
def test_case(case: File):
    dispatch(case, CHECKS)


def test_unknown_kind_fails():
    with pytest.raises(pytest.fail.Exception, match="no check"):
        dispatch(File("nothing.npz"), CHECKS)
