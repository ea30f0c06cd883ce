"""Checks of the EDM golden cases that concern sampling (collected by test_edm.py)."""

import json
import math
from pathlib import Path as File

import numpy as np
import torch
from torch import Tensor

from flowexp.paths import VE, Coefficients, Path, Schedule
from flowexp.samplers import (
    Churn,
    EDMGrid,
    EDMHeun,
    Euler,
    IDDPMGrid,
    LogSNR,
    SecondOrder,
    StackedGenerators,
    VPGrid,
)
from tests.samplers.closed_forms import DenoiserModel, mixture_denoiser

GRIDS = {"vp": VPGrid, "ve": LogSNR, "iddpm": IDDPMGrid, "edm": EDMGrid}


def tensor(data, key):
    return torch.from_numpy(np.asarray(data[key]))


class RecordedNoise:
    """Draw i of a golden file at step i."""

    def __init__(self, draws):
        self.draws = draws

    def __call__(self, step, like):
        return self.draws[step].to(like)


class EDMFamily(Schedule):
    """EDM's (schedule, scaling) pairs: ``alpha = s(t)``, ``sigma = s(t) n(t)``.

    n(t) is t ("linear"), sqrt(t) ("ve") or that of a VP path ("vp", betas fitted to n's range);
    s(t) is 1 ("none") or 1/sqrt(1 + n^2) ("vp").
    """

    def __init__(
        self, kind: str, scaling: str, *, sigma_min: float, sigma_max: float, epsilon_s: float
    ) -> None:
        self.kind, self.scaling = kind, scaling
        top, bottom = math.log1p(sigma_max**2), math.log1p(sigma_min**2)
        self.beta_d = 2.0 * (bottom / epsilon_s - top) / (epsilon_s - 1.0)
        self.beta_min = top - 0.5 * self.beta_d
        ends = self.time_at_nsr(torch.tensor([sigma_min, sigma_max], dtype=torch.float64))
        super().__init__(*ends.tolist())

    def _nsr_and_slope(self, t: Tensor) -> tuple[Tensor, Tensor]:
        if self.kind == "linear":
            return t, torch.ones_like(t)
        if self.kind == "ve":
            return t.sqrt(), 0.5 / t.sqrt()
        n = torch.sqrt(torch.expm1(0.5 * self.beta_d * t**2 + self.beta_min * t))
        return n, 0.5 * (self.beta_min + self.beta_d * t) * (n + 1.0 / n)

    def coefficients(self, t: Tensor) -> Coefficients:
        n, slope = self._nsr_and_slope(t)
        s = torch.ones_like(n) if self.scaling == "none" else torch.rsqrt(1.0 + n**2)
        d_s = torch.zeros_like(n) if self.scaling == "none" else -n * slope * s**3
        return Coefficients(s, s * n, d_s, d_s * n + s * slope, s**2 * slope)

    def time_at_nsr(self, nsr: Tensor) -> Tensor:
        if self.kind == "linear":
            return nsr
        if self.kind == "ve":
            return nsr**2
        root = torch.sqrt(self.beta_min**2 + 2.0 * self.beta_d * torch.log1p(nsr**2))
        return (root - self.beta_min) / self.beta_d


def check_sampler_edm(case: File) -> None:
    """EDM's sampler: final states and every denoiser call, with and without churn."""
    data = np.load(case)
    names = sorted(key.split("/")[0] for key in data.files if key.endswith("/kwargs_json"))
    assert names
    for name in names:
        options = json.loads(str(data[f"{name}/kwargs_json"]))
        steps = options.pop("num_steps", 18)
        churn = {key: options.pop(key) for key in list(options) if key.startswith("S_")}
        grid = EDMGrid(**options)
        path = Path(VE(t_min=grid.sigma_min, t_max=grid.sigma_max))
        calls = _Recorded(path, mixture_denoiser(data["w"], data["mu"], data["s"]))
        sampler = EDMHeun(steps=steps, time_grid=grid, **churn)
        samples = sampler.sample(
            calls, tensor(data, "latents"), noise=RecordedNoise(tensor(data, "noise"))
        )
        _close(samples.x, tensor(data, f"{name}/final"))
        _close(torch.stack(calls.sigmas), tensor(data, f"{name}/call_sigma"))
        _close(torch.stack(calls.states), tensor(data, f"{name}/call_x"))
        _close(torch.stack(calls.outputs), tensor(data, f"{name}/call_D"))
        assert samples.nfe.unique().tolist() == [int(data[f"{name}/nfe"])]


def check_sampler_ablation(case: File) -> None:
    """EDM's ablation: every solver x discretisation x schedule x scaling as a composition."""
    data = np.load(case)
    names = sorted(key.removesuffix("/final") for key in data.files if key.endswith("/final"))
    assert names
    for name in names:
        if f"{name}/kwargs_json" in data.files:
            options = json.loads(str(data[f"{name}/kwargs_json"]))
        else:
            keys = ("solver", "discretization", "schedule", "scaling")
            options = dict(zip(keys, name.split("-"), strict=True))
        # The reference takes the angles of the iDDPM table in float32.
        tolerance = 1e-4 if options["discretization"] == "iddpm" else 1e-9
        _check_ablation(data, name, {"num_steps": int(data["num_steps"])} | options, tolerance)


def _check_ablation(data, name: str, options: dict, tolerance: float) -> None:
    discretization = GRIDS[options.pop("discretization")]
    epsilon_s = options.pop("epsilon_s", 1e-3)
    own = {EDMGrid: ["rho"], IDDPMGrid: ["C_1", "C_2", "M"]}.get(discretization, [])
    limits = {k: options[k] for k in ("sigma_min", "sigma_max", *own) if k in options}
    limits |= {"epsilon_s": epsilon_s} if discretization is VPGrid else {}
    # The reference takes, and ignores, the options of other discretizations.
    for key in ("sigma_min", "sigma_max", "rho", "C_1", "C_2", "M"):
        options.pop(key, None)
    grid = discretization(**limits)
    schedule = EDMFamily(
        options.pop("schedule"),
        options.pop("scaling"),
        sigma_min=grid.sigma_min,
        sigma_max=grid.sigma_max,
        epsilon_s=epsilon_s,
    )
    churn = {key: options.pop(key) for key in list(options) if key.startswith("S_")}
    common = {
        "steps": options.pop("num_steps"),
        "time_grid": grid,
        "perturbation": Churn(**churn) if churn else None,
    }
    solver, alpha = options.pop("solver"), options.pop("alpha", 1.0)
    assert not options
    sampler = Euler(**common) if solver == "euler" else SecondOrder(alpha=alpha, **common)
    denoiser = mixture_denoiser(data["w"], data["mu"], data["s"])
    model = DenoiserModel(Path(schedule), denoiser)
    noise = RecordedNoise(tensor(data, "noise"))
    samples = sampler.sample(model, tensor(data, "latents"), noise=noise)
    _close(samples.x, tensor(data, f"{name}/final"), tolerance=tolerance)
    _close(torch.stack(model.sigmas), tensor(data, f"{name}/call_sigma"), tolerance=10 * tolerance)
    assert samples.nfe.unique().tolist() == [int(data[f"{name}/nfe"])]


def check_sigma_grids(case: File) -> None:
    """The noise levels that each discretisation visits."""
    data = np.load(case)
    for key in data.files:
        kind, steps = key.split("-")
        grid = GRIDS[kind]()
        schedule = VE(t_min=grid.sigma_min, t_max=grid.sigma_max)
        times = grid.times(DenoiserModel(Path(schedule), None), int(steps))
        rtol = 1e-3 if kind == "iddpm" else 1e-9
        torch.testing.assert_close(times[:-1], tensor(data, key), rtol=rtol, atol=0.0)
        assert float(times[-1]) == 0.0


def check_stacked_rng(case: File) -> None:
    """Latents, labels and step noise of the published seeds, bit for bit on the CPU."""
    data = np.load(case)
    latents, noise = tensor(data, "latents_f32"), tensor(data, "step_noise_f64")
    rng = StackedGenerators(data["seeds"].tolist())
    assert torch.equal(rng.normal(latents.shape[1:]), latents)
    assert torch.equal(rng.integers(10), tensor(data, "labels"))
    assert torch.equal(rng(0, noise), noise)


class _Recorded(DenoiserModel):
    """A denoiser model on the VE path that keeps its inputs and outputs."""

    def __init__(self, path, denoiser):
        super().__init__(path, denoiser)
        self.states, self.outputs = [], []

    def predict(self, x_t, t, **conditions):
        prediction = super().predict(x_t, t, **conditions)
        self.states.append(x_t)
        self.outputs.append(prediction.data)
        return prediction


def _close(actual: Tensor, expected: Tensor, *, tolerance: float = 1e-9) -> None:
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=tolerance * scale)


CHECKS = {
    "sampler_edm": check_sampler_edm,
    "sampler_ablation": check_sampler_ablation,
    "sigma_grids": check_sigma_grids,
    "stacked_rng": check_stacked_rng,
}
