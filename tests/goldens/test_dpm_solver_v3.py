"""DPM-Solver-v3, its statistics, and the multistep solvers it is compared with."""

from pathlib import Path as File

import numpy as np
import torch

from flowexp.calibration.statistics_pass import measure
from flowexp.models import Model
from flowexp.paths import VE, VP, Linear, Path
from flowexp.samplers import (
    DPMSolver,
    DPMSolverV3,
    EDMGrid,
    Given,
    LogSNR,
    ModelStatistics,
    PowerGrid,
    Statistics,
    UniPC,
)
from tests.goldens.harness import dispatch, parametrize
from tests.samplers.closed_forms import MixtureModel

SCHEDULES = {"edm": lambda a, b: VE(t_min=a, t_max=b), "vp": lambda a, b: VP(t_min=a, t_max=b),
             "flow": lambda a, b: Linear()}  # fmt: skip
LEVELS = {"sigma_min": 1e-9, "sigma_max": 1e9, "to_zero": False}
GRIDS = {
    "logSNR": LogSNR(**LEVELS),
    "time_uniform": PowerGrid(p=1.0),
    "time_quadratic": PowerGrid(p=2.0),
    "edm": EDMGrid(rho=7.0, **LEVELS),
}


class Fixed(Statistics):
    """Statistics that are given."""

    def __init__(self, statistics):
        self.statistics = statistics

    def of(self, model, low, high):
        assert self.statistics.covers(low, high)
        return self.statistics


class Recording(Model):
    """A model that keeps the states at which it is evaluated."""

    def __init__(self, model):
        self.model, self.path, self.time_range = model, model.path, model.time_range
        self.states = []

    def predict(self, x_t, t, **conditions):
        self.states.append(x_t)
        return self.model.predict(x_t, t)


def tensor(data, key):
    return torch.from_numpy(np.asarray(data[key], dtype=np.float64))


def close(actual, expected, tolerance):
    scale = expected.abs().max().clamp(min=1.0)
    torch.testing.assert_close(
        actual, expected.to(actual.dtype), rtol=0.0, atol=tolerance * float(scale)
    )


def model_of(case, data):
    """The mixture on the path in the file's name, between the file's times."""
    kind = case.stem.split("_")[1]
    mixture = data if "gmm_w" in data.files else np.load(case.with_name(f"ems_{kind}.npz"))
    low, high = float(data["t_0"]), float(data["t_T"])
    return MixtureModel(
        Path(SCHEDULES[kind](low, high)),
        *(mixture[f"gmm_{key}"] for key in "wmc"),
        time_range=(low, high),
    )


def walked(sampler, model, data):
    first = torch.tensor(model.time_range[1], dtype=torch.float64)
    start = model.path.schedule.coefficients(first).sigma
    states = []
    samples = sampler.sample(
        model, tensor(data, "x_T") / start, on_step=lambda t, x: states.append((t, x))
    )
    assert samples.nfe.unique().tolist() == [int(data["nfe"])]
    close(samples.x, states[-1][1], 1e-15)
    return torch.stack([t for t, _ in states]), torch.stack([x for _, x in states])


def check_multistep(case):
    data = np.load(case)
    name = f"{case.stem} {data['algorithm']}"
    common = {
        "steps": int(data["steps"]),
        "time_grid": GRIDS[str(data["skip_type"])],
        "order": int(data["order"]),
        "lower_order_final": bool(data["lower_order_final"]),
    }
    if "unipc" in name:
        options = {"predicts_data": "noise" not in name, "exponential": "bh2" in name}
        sampler = UniPC(**common, **options)
    else:
        # the authors' "taylor" concerns second-order steps only
        options = {"predicts_data": "dpmpp" in name, "midpoint": "taylor" not in name}
        sampler = DPMSolver(**common, **options)
    times, states = walked(sampler, model_of(case, data), data)
    close(times, tensor(data, "timesteps"), 1e-12)
    close(states, tensor(data, "x_all"), 1e-9)


def check_v3(case):
    data = np.load(case)
    model = model_of(case, data)
    measured = np.load(case.with_name(f"ems_{case.stem.split('_')[1]}.npz"))
    parts = {key: tensor(measured, key) for key in "lsb"}
    if int(data["degenerated"]):
        parts = {key: torch.full_like(part, key == "l") for key, part in parts.items()}
    half = {}
    if "half" in data.files and int(data["half"]):
        half = {"corrector_low": 0.5}
    sampler = DPMSolverV3(
        steps=int(data["steps"]),
        time_grid=GRIDS[str(data["skip_type"])],
        statistics=Fixed(ModelStatistics(tensor(measured, "lam"), **parts)),
        order=int(data["order"]),
        p_pseudo=bool(data["p_pseudo"]),
        corrector=bool(data["use_corrector"]),
        c_pseudo=bool(data["c_pseudo"]),
        lower_order_final=bool(data["lower_order_final"]),
        **half,
    )
    times, states = walked(sampler, model, data)
    grid = tensor(measured, "lam")[torch.from_numpy(data["indexes"])]
    close(-torch.log(model.path.schedule.nsr(times)), grid, 1e-12)
    close(times, tensor(data, "timesteps"), 1e-12)
    # the file's cached states are those at which the model was evaluated, after correction
    close(states[:-1], tensor(data, "x_cached"), 1e-8)
    close(states[-1], tensor(data, "x_out"), 1e-8)


def check_diffusers(case):
    data = np.load(case)
    n, order = int(data["n"]), int(data["order"])
    model = MixtureModel(Path(Linear()), *(data[f"gmm_{key}"] for key in "wmc"))
    common = {"steps": n, "time_grid": Given(values=data["sigmas"].tolist()), "order": order}
    if "unipc" in case.stem:
        sampler = UniPC(**common)
    else:
        # diffusers lowers the order at the end of short walks only
        sampler = DPMSolver(**common, lower_order_final=n < 15)
    recording = Recording(model)
    # it starts from e itself, not from sigma e
    e = tensor(data, "x_src") / float(data["sigmas"][0])
    samples = sampler.sample(recording, e)
    # its states are those it asks the model at, before they are corrected, and the last
    close(torch.stack([*recording.states, samples.x]), tensor(data, "x_states"), 2e-4)


def check_statistics(case):
    data = np.load(case)
    model = model_of(case, data)
    lam = tensor(data, "lam")
    draws = {"x": tensor(data, "x0"), "e": tensor(data, "e")}
    for suffix, probes in (("", None), ("_hutch", tensor(data, "v")[None])):
        found = measure(model, lam, **draws, probes=probes, batch_size=1024)
        close(found.l, tensor(data, f"l{suffix}"), 1e-8)
        for key in "sb":
            expected = tensor(data, key + suffix)
            torch.testing.assert_close(getattr(found, key), expected, rtol=1e-6, atol=1e-6)


CHECKS = {
    "ems_": check_statistics,
    "ms_": check_multistep,
    "v3_": check_v3,
    "diffusers_dpmpp": check_diffusers,
    "diffusers_unipc": check_diffusers,
}


@parametrize("dpm-solver-v3")
def test_dpm_solver_v3(case: File):
    dispatch(case, CHECKS)
