"""Goldens of flow maps: laws of their times, and schedules of the first leg."""

import json
from dataclasses import replace

import torch

from flowexp.objectives.flow_map import (
    ConstantShare,
    CosineShare,
    DrawnGuidance,
    ExponentialShare,
    Leap,
    LinearShare,
    LogarithmicShare,
    ScheduledShare,
    SigmoidShare,
    StepShare,
)
from flowexp.paths import Linear
from flowexp.timesteps import Capped, GapAndEnd, LogitNormal, Sorted, StartAndBelow, Uniform
from tests.goldens.flow_maps_network import load, tensor


def close(found, wanted, *, rtol):
    found, wanted = (torch.as_tensor(value, dtype=torch.float64) for value in (found, wanted))
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=1e-15)


def alpha_schedule(name, options):
    """A step of the golden is a thousand images here."""
    ends = {"initial": options["initial_value"], "final": options.get("end_value", 0.0)}
    if name == "constant":
        return ConstantShare(value=ends["initial"])
    start, end = options["change_init_steps"], options["change_end_steps"]
    if name == "step":
        return StepShare(**ends, at_kimg=start)
    ends |= {"start_kimg": start, "end_kimg": end}
    if name == "sigmoid":
        return SigmoidShare(**ends, gamma=options["gamma"])
    if name == "exponential":
        return ExponentialShare(**ends, power=options["gamma"])
    return {"linear": LinearShare, "log": LogarithmicShare}[name](**ends)


def check_alpha_schedule(case):
    g = load(case)
    options = json.loads(str(g["cfg_json"]))
    above = options.get("up_clamp_value")
    leg = ScheduledShare(
        schedule=alpha_schedule(str(g["scheduler"]), options),
        snap=options["clamp_value"],
        whole_above=1.0 if above is None else above,
        discrete=bool(options.get("discrete_training", False)),
    )
    close([leg.share(1000 * int(step)) for step in g["steps"]], g["value"], rtol=1e-12)


def check_soflow_middle(case):
    g = load(case)
    initial, final = float(g["init_ratio"]), float(g["end_ratio"])
    method, end = str(g["method"]), float(g["total_steps"])
    if method == "Const":
        schedule = ConstantShare(value=final)
    else:
        kinds = {"Linear": LinearShare, "Cosine": CosineShare, "Exponent": ExponentialShare}
        schedule = kinds[method](initial=initial, final=final, end_kimg=end)
    for min_gap, name in ((0.0, "s"), (1e-4, "s_clamped")):
        leg = ScheduledShare(schedule=schedule, min_gap=min_gap)
        for step, wanted in zip(g["steps"], g[name], strict=True):
            leap = leap_at(tensor(g, "t"), tensor(g, "r"), images_seen=1000 * int(step))
            close(leg.end(leap), wanted, rtol=1e-12)


def leap_at(t, r, *, images_seen):
    state = torch.zeros(len(t), 1, dtype=torch.float64)
    return Leap(
        x=state,
        e=state,
        x_t=state,
        velocity=state,
        t=t,
        r=r,
        schedule=Linear(),
        s=None,
        conditions={},
        uniforms={},
        images_seen=images_seen,
    )


def quantiles(g, *names):
    """Uniform numbers (n, k) of the golden's draws: n1 .. are normal numbers."""
    columns = [tensor(g, name) for name in names]
    u = [torch.special.ndtr(c) if n[0] == "n" else c for n, c in zip(names, columns, strict=True)]
    return torch.stack(u, dim=1)


class Shrunk(LogitNormal):
    """Logit-normal times, of which the authors of alpha-Flow take ``1 - eps`` times each."""

    def __init__(self, *, mean, std, eps):
        super().__init__(mean=mean, std=std)
        self.eps = eps

    def quantile(self, u):
        return (1.0 - self.eps) * super().quantile(u)


def laws_of_times(name, g, options):
    """The law with the golden's options, and the uniform numbers behind its draws."""
    if name == "imf":
        law = LogitNormal(mean=options["P_mean"], std=options["P_std"])
        return Sorted(law, diagonal=options["data_proportion"]), quantiles(g, "n1", "n2")
    if name == "selfdistill":
        law = Uniform(low=options["tmin"], high=options["tmax"])
        u = quantiles(g, "u1", "u2")  # in data time
        return Sorted(law, diagonal=options["diag_fraction"]), 1.0 - u
    if name == "soflow":
        start = LogitNormal(mean=options["mean_t"], std=options["std_t"])
        end = LogitNormal(mean=options["mean_r"], std=options["std_r"])
        return Capped(start=start, end=end, min_gap=1e-4), quantiles(g, "n2", "n1")
    if name == "tvm":
        gap = LogitNormal(mean=options["gap_P_mean"], std=options["gap_P_std"])
        end = LogitNormal(mean=options["s_P_mean"], std=options["s_P_std"])
        return GapAndEnd(gap=gap, end=end), quantiles(g, "n1", "u1", "n2")
    if name == "alphaflow_minmax":
        law = Shrunk(mean=options["location"], std=options["scale"], eps=options["eps"])
        return Sorted(law), quantiles(g, "n1", "n2")
    assert name == "alphaflow_truncated"
    start = Shrunk(mean=options["location_t"], std=options["scale_t"], eps=options["eps"])
    end = LogitNormal(mean=options["location_r"], std=options["scale_r"])
    return StartAndBelow(start=start, end=end), quantiles(g, "u1", "u2")


def check_times(case):
    """The references put their rows with r = t first; how many they are is compared as well."""
    g = load(case)
    law, u = laws_of_times(str(g["law"]), g, json.loads(str(g["options_json"])))
    times = law.quantile(u, schedule=Linear())
    wanted = tensor(g, "r")
    equal = int(law.on_diagonal(len(u)).sum())
    assert int((wanted == tensor(g, "t")).sum()) == equal
    times[:equal, 1] = times[:equal, 0]
    close(times[:, 0], tensor(g, "t"), rtol=1e-9)
    close(times[:, 1], wanted, rtol=1e-9)
    if "r_prime" in g:
        close(times[:, 2], tensor(g, "r_prime"), rtol=1e-9)
    if "omega" in g:
        beta = json.loads(str(g["options_json"]))["cfg_beta"]
        uniforms = {"guidance_inputs": quantiles(g, "u1", "u2", "u3")}
        leap = replace(leap_at(times[:, 0], times[:, 1], images_seen=0), uniforms=uniforms)
        drawn = DrawnGuidance(beta=beta).conditions(leap)
        for found, name in (("scale", "omega"), ("start", "t_min"), ("end", "t_max")):
            close(drawn[f"guidance_{found}"], tensor(g, name), rtol=1e-9)


CHECKS = {
    "times": check_times,
    "alpha_schedule": check_alpha_schedule,
    "soflow_middle": check_soflow_middle,
}
