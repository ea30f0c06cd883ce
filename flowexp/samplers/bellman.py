"""Time grids with the smallest sum of one-step errors, found by dynamic programming."""

import math
from pathlib import Path as FilePath

import numpy as np
import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.samplers.base import TimeGrid
from flowexp.samplers.stored_calibrations import StoredCalibration, find_calibration

__all__ = ["METHOD", "BellmanGrid", "least_cost_path"]

METHOD = "boss"
"""Folder of step costs below a run's calibrations."""


def least_cost_path(cost: Tensor, edges: int) -> tuple[list[int], float]:
    """The path ``0 = i_0 < .. < i_K = last`` of the least ``sum_m cost[i_m, i_m+1]``, and that sum.

    ``V_1[j] = cost[j, last]``, ``V_k[j] = min_{m > j} cost[j, m] + V_{k-1}[m]``; the answer is
    ``V_K[0]``, and of equal paths the one that takes the shortest steps first.

    Of ``cost``, (P, P), the part above the diagonal is used; ``edges`` is K, 1 to P - 1. A matrix
    that is not square or not finite there is a ValueError.

    Source: Nguyen et al., BOSS, 2023, arXiv 2312.16414, section 3.
    """
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1]:
        raise ValueError(f"cost has shape {tuple(cost.shape)}; expected (P, P)")
    last = len(cost) - 1
    if not 1 <= edges <= last:
        raise ValueError(f"edges is {edges}; {len(cost)} points allow 1 to {last}")
    costs = cost.to(device="cpu", dtype=torch.float64).numpy()
    upward = np.triu(np.ones_like(costs, dtype=bool), 1)
    if not np.isfinite(costs[upward]).all():
        raise ValueError("cost is not finite above its diagonal")
    costs = np.where(upward, costs, math.inf)
    to_go = costs[:, last]
    choices = []
    for _ in range(edges - 1):
        sums = costs + to_go
        # argmin takes the first of equals, which is the shortest step.
        choices.append(sums.argmin(axis=1))
        to_go = sums.min(axis=1)
    path = [0]
    for chosen in reversed(choices):
        path.append(int(chosen[path[-1]]))
    return [*path, last], float(to_go[0])


class BellmanGrid(TimeGrid):
    """The times between which a model's steps have the smallest sum of errors, for any number.

    It needs the step costs that ``flowexp calibrate run=DIR for=boss`` stores with the run.

    Args:
        calibration: Name of the stored costs; None = the only ones that fit the model, guided or
            not as it is.
        run: Directory of the run whose costs are used instead of the model's own: the teacher of a
            model that was straightened at its times.

    Source: Nguyen et al., BOSS, 2023, arXiv 2312.16414.
    """

    def __init__(self, *, calibration: str | None = None, run: str | None = None) -> None:
        self.calibration = calibration
        self.run = run

    def times(self, model: Model, steps: int) -> Tensor:
        """``steps + 1`` of the stored fine grid's times; a ValueError if it has fewer."""
        stored = self._stored(model)
        with np.load(stored.file) as arrays:
            times, cost = (torch.from_numpy(arrays[name]) for name in ("times", "cost"))
        if steps > len(times) - 1:
            raise ValueError(
                f"steps is {steps}, but the grid of {stored.name} has {len(times) - 1} steps; "
                f"calibrate a finer one with calibration.fine_steps"
            )
        return times[least_cost_path(cost, steps)[0]]

    def _stored(self, model: Model) -> StoredCalibration:
        key = "sampler.time_grid.calibration"
        elsewhere = None if self.run is None else FilePath(self.run) / "calibrations"
        calls = model.evaluations_per_call

        def misfit(stored: StoredCalibration) -> str | None:
            measured = stored.settings.get("evaluations_per_call", calls)
            if self.calibration is not None or measured == calls:
                return None
            return (
                f"was measured with {measured} evaluations per call, but this model has {calls}; "
                f"calibrate with the guidance you sample with, or choose it with {key}=NAME"
            )

        return find_calibration(
            model, method=METHOD, name=self.calibration, key=key, misfit=misfit, elsewhere=elsewhere
        )

    def identity(self) -> str:
        return f"BellmanGrid(calibration={self.calibration!r}, run={self.run!r})"
