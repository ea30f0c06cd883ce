"""The calibration of BOSS: what one step between any two times of a fine trajectory costs."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowexp.calibration.base import (
    Calibrated,
    Calibration,
    FineTrajectory,
    RunParts,
    Subject,
    fine_times,
)
from flowexp.errors import UsageError
from flowexp.progress import track
from flowexp.samplers import FixedStepSampler, Interval, TimeGrid
from flowexp.samplers.bellman import METHOD, least_cost_path

__all__ = ["Distance", "StepCostCalibration", "squared_distance", "step_costs"]


Distance = Callable[[Tensor, Tensor], Tensor]
"""Of samples (B, ...) and (B, ...), per sample (B,)."""


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """``|a - b|^2``, the sum over all dimensions of a sample."""
    return (a - b).flatten(1).square().sum(dim=1)


@torch.inference_mode()
def step_costs(trajectory: FineTrajectory, *, rule: FixedStepSampler, distance: Distance) -> Tensor:
    """``cost[j, k] = sum_i d(step(x_j -> t_k), x_k)`` over the samples of a fine trajectory.

    The steps are those of ``rule``; the result is (P, P), float64, 0 on and below the diagonal.
    """
    field, nodes, states = trajectory.field, trajectory.nodes, trajectory.states
    count = len(nodes)
    cost = torch.zeros(count, count, dtype=torch.float64)
    for j in track(range(count - 1), "steps from", unit="times"):
        start = trajectory.known_node(j)
        for k in range(j + 1, count):
            interval = Interval(start, nodes[k], j, count - 1)
            end = field.leave(rule.step(field, states[j], interval, None), nodes[k])
            cost[j, k] = distance(end, field.leave(states[k], nodes[k])).sum()
    return cost


class StepCostCalibration(Calibration):
    """Costs of single steps between the times of a fine grid, for the best K steps of any K.

    The fine trajectory is Euler's with ``fine_steps`` steps; the cost of a step from t_j to t_k is
    the mean distance between where the rule lands from x_j and x_k. Guidance and conditions are
    those the model is sampled with. Batches are separate files, so a stopped calibration continues,
    and several processes share them.

    Args:
        num: Number of source draws, >= 1.
        fine_steps: Steps of the fine grid, K_max >= 2.
        time_grid: The fine grid.
        rule: The solver whose steps are to be placed; Euler's need no further evaluations.
        distance: Between samples; None = squared L2 over all dimensions. A perceptual distance
            receives images clipped to [-1, 1].

    Source: Nguyen et al., BOSS, 2023, arXiv 2312.16414: 100 draws, 100 steps, Euler, squared L2.
    """

    method = METHOD

    def __init__(
        self,
        *,
        rule: FixedStepSampler,
        time_grid: TimeGrid,
        num: int = 100,
        fine_steps: int = 100,
        distance: Distance | None = None,
    ) -> None:
        for name, value, least in (("num", num, 1), ("fine_steps", fine_steps, 2)):
            if value < least:
                raise ValueError(f"{name} is {value}; expected at least {least}")
        if type(rule).step is FixedStepSampler.step or rule.adds_noise:
            raise ValueError(
                f"rule is {type(rule).__name__}, whose steps depend on more than where they begin; "
                f"choose a one-step method without noise, such as euler or heun"
            )
        self.num, self.fine_steps = num, fine_steps
        self.time_grid, self.rule = time_grid, rule
        self.distance = distance

    def calibrate(self, subject: Subject, *, directory: Path) -> Calibrated:
        if self.distance is not None and subject.pipeline.autoencoder.encodes:
            raise UsageError(
                f"{type(self.distance).__name__} compares images, but the flow is on latents.",
                key="calibration.distance",
                remedy="Set it to null.",
            )
        model = subject.guided
        times = fine_times(self.time_grid, model, self.fine_steps)
        settings = {
            "num": self.num,
            "fine_steps": self.fine_steps,
            "time_grid": self.time_grid.identity(),
            "rule": type(self.rule).__name__,
            "variable": type(self.rule.variable).__name__,
            "distance": "squared L2" if self.distance is None else type(self.distance).__name__,
            "evaluations_per_call": model.evaluations_per_call,
            "batch_size": subject.pipeline.batch_size,
            "asked": subject.config,
        }
        manifest, digest = self.manifest(subject, settings)
        rule = settings["rule"]
        file = directory / f"{rule}_{self.fine_steps}_{self.num}_{digest}.npz"
        batches = subject.batches(self.num)

        def part(i: int) -> dict[str, Tensor]:
            variable = self.rule.variable
            trajectory = FineTrajectory.of_seeds(subject, batches[i], times, variable=variable)
            return {"cost": step_costs(trajectory, rule=self.rule, distance=self._distance)}

        def measure(run: RunParts) -> dict[str, Tensor]:
            found = run("costs", len(batches), part, what="step costs of", unit="batches")
            total = torch.stack([part["cost"] for part in found]).sum(0)
            return {"times": times, "cost": total / self.num}

        self.measure_once(subject, file, manifest, measure=measure)
        return self._described(subject, file)

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        if self.distance is None:
            return squared_distance(a, b)
        return self.distance(a.float().clamp(-1.0, 1.0), b.float().clamp(-1.0, 1.0))

    def _described(self, subject: Subject, file: Path) -> Calibrated:
        with np.load(file) as arrays:
            times, cost = arrays["times"], torch.from_numpy(arrays["cost"])
        rule = type(self.rule).__name__
        grid = f"{self.fine_steps} Euler steps, {self.num} draws, steps of {rule} between them"
        summary = [("fine grid", grid)]
        sampler = subject.pipeline.sampler
        # sampler=boss is Euler's method; another rule takes its own sampler on the same grid.
        others = [f"sampler={rule.lower()}", "sampler/time_grid=bellman"]
        use = ["sampler=boss"] if rule == "Euler" else others
        if isinstance(sampler, FixedStepSampler) and (steps := sampler.steps) < len(times):
            path, total = least_cost_path(cost, steps)
            listed = " ".join(f"{float(times[i]):.3g}" for i in path)
            even = [round(i * (len(times) - 1) / steps) for i in range(steps + 1)]
            of_even = sum(float(cost[a, b]) for a, b in pairwise(even))
            summary.append((f"{steps} steps at", listed))
            summary.append(
                ("sum of costs", f"{total:.4g}, evenly spread over the grid {of_even:.4g}")
            )
            use.append(f"sampler.steps={steps}")
        return Calibrated(file, summary, use)
