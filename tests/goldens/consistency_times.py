"""Goldens of consistency models: laws of their times, and the curriculum of CM."""

import json

import torch

from flowexp.paths import VE
from flowexp.timesteps import (
    FixedPoints,
    Halving,
    LogNormal,
    LogStudent,
    NoiseGrid,
    ShrinkingRatio,
    SquareRootGrowth,
    Truncated,
)
from flowexp.training import ConstantEMA, CurriculumEMA
from tests.goldens.flow_maps_network import load, tensor


def close(found, wanted, *, rtol):
    found, wanted = (torch.as_tensor(value, dtype=torch.float64) for value in (found, wanted))
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=1e-15)


def check_ect_map(case):
    g = load(case)
    k = float(g["k"]) if str(g["adj"]) == "sigmoid" else 0.0
    law = ShrinkingRatio(LogNormal(), stage_kimg=0.001, q=float(g["q"]), k=k, b=float(g["b"]))
    for stage, r, ratio in zip(g["stages"], g["r"], g["ratio"], strict=True):
        there = law.at(int(stage))  # a stage is one image
        assert there.stage == stage
        close(there.ratio, ratio, rtol=1e-12)
        close(there.middle(tensor(g, "t")), r, rtol=1e-12)


def check_tcm_times(case):
    g = load(case)
    mean, scale = float(g["mu"]), float(g["sigma"])
    ends = {"lower": float(g["lower"]), "upper": float(g["upper"])}
    if str(g["law"]) == "normal":
        law = Truncated(LogNormal(P_mean=mean, P_std=scale), **ends)
    else:
        law = LogStudent(mean=mean, scale=scale, df=float(g["df"]), **ends)
    close(law.times(tensor(g, "u"), schedule=VE()), g["t"], rtol=1e-7)
    close(law.cdf(tensor(g, "t")), g["u"], rtol=1e-7)


def check_halving(g, options):
    """The reference counts steps here, not levels; its target is the teacher, and never moves."""
    stage = options["distill_steps_per_iter"] / 1000.0
    curriculum = Halving(start=options["start_scales"], stage_kimg=stage)
    for step, steps, rate in zip(g["steps"], g["scales"], g["ema"], strict=True):
        assert curriculum.points(int(step)) - 1 == steps
        assert rate == 1.0


def check_cm_schedule(case):
    """A step of the golden is one image here."""
    g = load(case)
    options = json.loads(str(g["options_json"]))
    start, rate = options["start_scales"], options["start_ema"]
    if options["scale_mode"] == "progdist":
        check_halving(g, options)
        return
    if options["scale_mode"] == "fixed":
        curriculum = FixedPoints(points=start)
    else:
        assert options["scale_mode"] == "progressive"
        total = options["total_steps"] / 1000.0
        curriculum = SquareRootGrowth(start=start, end=options["end_scales"], total_kimg=total)
    if options["target_ema_mode"] == "fixed":
        ema = ConstantEMA(decay=rate)
    else:
        ema = CurriculumEMA(curriculum=curriculum, start=rate)
    law = NoiseGrid(curriculum=curriculum)
    for step, points, beta in zip(g["steps"], g["scales"], g["ema"], strict=True):
        assert len(law.at(int(step)).noise_levels()) == points
        close(ema.beta(int(step), 1), beta, rtol=1e-12)


CHECKS = {
    "ect_map": check_ect_map,
    "tcm_times": check_tcm_times,
    "cm_schedule": check_cm_schedule,
}
