"""Few-step solvers of zju-pi/diff-sampler: schedules, trajectories, weights, analytical first step.

Cases of learned schedules (``gits``, ``dp``) are of methods that flowexp does not have.
"""

import json
from pathlib import Path as File

import numpy as np
import pytest
import torch

from flowexp.paths import VE, DiscreteVP, Path
from flowexp.samplers import (
    DEIS,
    DPM2,
    IPNDM,
    AdamsBashforth,
    DPMSolver,
    EDMGrid,
    EDMHeun,
    Euler,
    IPNDMVariable,
    LogSNR,
    NoiseToSignal,
    PowerGrid,
    VPGrid,
)
from flowexp.samplers.noise_grids import VPLevels
from tests.goldens.harness import dispatch, parametrize
from tests.samplers.closed_forms import DenoiserModel, mixture_denoiser

RANGE = {"sigma_min": 0.002, "sigma_max": 80.0}


def tensor(data, key):
    return torch.from_numpy(np.asarray(data[key], dtype=np.float64))


def close(actual, expected, tolerance):
    scale = float(expected.abs().max())
    torch.testing.assert_close(
        actual, expected.to(actual.dtype), rtol=0.0, atol=tolerance * max(scale, 1.0)
    )


def grid_of(options, *, to_zero=False):
    """The time grid of ``get_schedule``; its rho is unused by logsnr."""
    levels = {key: options.get(key, value) for key, value in RANGE.items()} | {"to_zero": to_zero}
    rho = float(options.get("schedule_rho", 7.0))
    return {
        "polynomial": lambda: EDMGrid(rho=rho, **levels),
        "logsnr": lambda: LogSNR(**levels),
        "time_uniform": lambda: VPGrid(rho=rho, **levels),
    }[options.get("schedule_type", "polynomial")]()


def discrete_grid(options):
    ends = torch.tensor([options[key] for key in RANGE], dtype=torch.float64)
    low, high = DiscreteVP().time_at_nsr(ends).clamp(max=1.0).tolist()
    return PowerGrid(p=1.0, t_start=high, t_end=low)


def model_of(data, schedule=None):
    schedule = schedule or VE(t_min=RANGE["sigma_min"], t_max=RANGE["sigma_max"])
    return DenoiserModel(Path(schedule), mixture_denoiser(data["w"], data["mu"], data["s"]))


def walked(sampler, data, model):
    states = []
    samples = sampler.sample(model, tensor(data, "latents"), on_step=lambda t, x: states.append(x))
    assert samples.nfe.unique().tolist() == [len(model.sigmas)]
    return samples, torch.stack(states)


def check_schedule(case):
    data = np.load(case)
    options = {"schedule_type": str(data["type"]), "schedule_rho": float(data["rho"])}
    options |= {key: float(data[key]) for key in RANGE}
    schedule = VE(t_min=RANGE["sigma_min"], t_max=RANGE["sigma_max"])
    grid = grid_of
    if options["schedule_type"] == "discrete":
        # equal steps in the time of Stable Diffusion's levels, between which log abar is linear
        schedule, grid = DiscreteVP(), discrete_grid
        close(schedule.alphas_cumprod, tensor(data, "alphas_cumprod"), 1e-12)
    model = model_of({"w": [1.0], "mu": [[0.0]], "s": [1.0]}, schedule)
    times = grid(options).times(model, int(data["num_steps"]) - 1)
    torch.testing.assert_close(schedule.nsr(times), tensor(data, "t_steps"), rtol=1e-9, atol=0.0)


SOLVERS = {
    "euler": lambda o, **k: Euler(variable=NoiseToSignal(), **k),
    "heun": lambda o, **k: EDMHeun(**k),
    "dpm2": lambda o, **k: DPM2(r=o.get("r", 0.5), **k),
    "ipndm": lambda o, **k: IPNDM(order=o.get("max_order", 4), **k),
    "ipndm_v": lambda o, **k: IPNDMVariable(order=o.get("max_order", 4), **k),
    "dpmpp": lambda o, **k: DPMSolver(
        order=o.get("max_order", 3),
        predicts_data=o.get("predict_x0", True),
        lower_order_final=o.get("lower_order_final", True),
        **k,
    ),
}


def built(solver, options, **more):
    """A sampler on the case's grid; ``denoise_to_zero`` is one more step, to 0."""
    to_zero = bool(options.get("denoise_to_zero", False))
    return SOLVERS[solver](
        options,
        steps=int(options["num_steps"]) - 1 + to_zero,
        time_grid=grid_of(options, to_zero=to_zero),
        analytic_first_step=bool(options.get("afs", False)),
        **more,
    )


def check_traj(case):
    data = np.load(case)
    options = json.loads(str(data["options_json"]))
    solver = str(data["solver"])
    samples, states = walked(built(solver, options), data, model_of(data))
    close(states, tensor(data, "inters"), 1e-9)
    assert samples.nfe.unique().tolist() == [int(data["nfe"])]
    if "inters_ab" in data.files:
        exact = AdamsBashforth(
            steps=int(options["num_steps"]) - 1,
            order=options.get("max_order", 4),
            variable=NoiseToSignal(),
            time_grid=grid_of(options),
            analytic_first_step=bool(options.get("afs", False)),
        )
        close(walked(exact, data, model_of(data))[1], tensor(data, "inters_ab"), 1e-9)
        weights = {"weights": built(solver, options), "weights_ab": exact}
        for name, sampler in weights.items():
            close(rows(sampler, data["t_steps"]), tensor(data, name), 1e-9)


def rows(sampler, times):
    """The weights of all steps, padded with 0."""
    table = torch.zeros(len(times) - 1, sampler.order, dtype=torch.float64)
    for i in range(len(times) - 1):
        nodes = [float(t) for t in times[: i + 1][::-1][: sampler.order]]
        table[i, : len(nodes)] = torch.tensor(
            sampler.weights(nodes, float(times[i + 1])), dtype=torch.float64
        )
    return table


def check_weights(case):
    data = np.load(case)
    common = {"steps": 1, "order": int(data["max_order"])}
    for name, method in (("weights", IPNDMVariable), ("weights_ab", AdamsBashforth)):
        found = rows(method(**common), data["t_steps"])
        torch.testing.assert_close(found, tensor(data, name), rtol=1e-9, atol=1e-12)


def check_deis(case):
    data = np.load(case)
    options = json.loads(str(data["options_json"]))
    to_zero = bool(options.get("denoise_to_zero", False))
    sampler = DEIS(
        steps=int(options["num_steps"]) - 1 + to_zero,
        order=int(data["max_order"]),
        in_time=str(data["mode"]) == "tab",
        time_grid=grid_of(options, to_zero=to_zero),
        analytic_first_step=bool(options.get("afs", False)),
    )
    close(rows(sampler, data["t_steps"]), tensor(data, "coeff_exact"), 1e-9)
    samples, states = walked(sampler, data, model_of(data))
    close(states, tensor(data, "inters_exact"), 1e-9)
    assert samples.nfe.unique().tolist() == [int(data["nfe"])]
    # The reference sums over 10,000 points.
    for own, name in ((rows(sampler, data["t_steps"]), "coeff"), (states, "inters")):
        difference = float((own - tensor(data, name)).abs().max() / tensor(data, name).abs().max())
        assert difference <= float(data["ref_vs_exact"].max()) * 1.01 + 1e-12
    if "vp_time" in data.files:
        levels = VPLevels.between(**RANGE, epsilon_s=1e-3)
        close(levels.time(tensor(data, "t_steps")), tensor(data, "vp_time"), 1e-12)
        assert levels.beta_min == pytest.approx(float(data["beta_0"]), rel=1e-9)
        assert levels.beta_d + levels.beta_min == pytest.approx(float(data["beta_1"]), rel=1e-12)


CHECKS = {
    "schedule": check_schedule,
    "traj": check_traj,
    "weights": check_weights,
    "deis": check_deis,
}


@parametrize("step-schedules")
def test_case(case: File):
    if case.stem.startswith(("gits", "dp_")):
        pytest.skip("a learned schedule")
    dispatch(case, CHECKS)
