"""Goldens of flow maps: laws of their times, and schedules of the first leg."""

import json

import torch

from flowexp.objectives.flow_map import (
    ConstantShare,
    CosineShare,
    ExponentialShare,
    Leap,
    LinearShare,
    LogarithmicShare,
    ScheduledShare,
    SigmoidShare,
    StepShare,
)
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
        schedule = ConstantShare(value=initial)
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
        middle=None,
        conditions={},
        uniforms={},
        images_seen=images_seen,
    )


CHECKS = {"alpha_schedule": check_alpha_schedule, "soflow_middle": check_soflow_middle}
