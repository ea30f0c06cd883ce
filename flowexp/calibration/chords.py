"""Chords of a model's trajectories between given times: the data of BOSS's straightening."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.calibration.base import (
    Calibrated,
    Calibration,
    FineTrajectory,
    RunParts,
    Subject,
    fine_times,
    short_digest,
)
from flowexp.couplings.chords import CHORDS
from flowexp.paths import Path as ProbabilityPath
from flowexp.samplers import FixedStepSampler, Time, TimeGrid
from flowexp.tasks import refuse_given

__all__ = ["ChordCalibration", "endpoints", "refined_times"]

_PLAIN = re.compile(r"[\w-]+")
_ROUNDING = 1e-9


def endpoints(
    path: ProbabilityPath, x_t: Tensor, velocity: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    """The pair (x, e) whose conditional path has this state and this velocity at time t.

    ``x = (sigma' x_t - sigma v) / W``, ``e = (alpha v - alpha' x_t) / W`` with
    ``W = alpha sigma' - alpha' sigma``: on the linear path ``x_t - t v`` and ``x_t + (1 - t) v``.
    ``x_t`` and ``velocity`` are (B, ...), ``t`` is (B,), all float64.
    """
    c = path.schedule.coefficients(t)
    alpha, sigma, d_alpha, d_sigma, wronskian = (
        expand_as(value, x_t) for value in (c.alpha, c.sigma, c.d_alpha, c.d_sigma, c.wronskian)
    )
    x = (d_sigma * x_t - sigma * velocity) / wronskian
    e = (alpha * velocity - d_alpha * x_t) / wronskian
    return x, e


def refined_times(times: Tensor, fine: Tensor) -> tuple[Tensor, list[int]]:
    """The part of a fine grid within ``times``, with these added, and their positions in it."""
    between = fine[(fine < times[0]) & (fine > times[-1])]
    # Times that differ by rounding only are the same.
    gaps = (between[:, None] - times[None, :]).abs()
    apart = (gaps > _ROUNDING * torch.maximum(between[:, None], times[None, :])).all(dim=1)
    joined = torch.cat([times, between[apart]]).sort(descending=True).values
    return joined, [int((joined == time).nonzero()) for time in times]


class ChordCalibration(Calibration):
    """Chords of fine trajectories over the steps of the chosen sampler's grid.

    Between the grid's times tau_m and tau_{m+1} a trajectory has the chord
    ``v_m = (x_{tau_{m+1}} - x_{tau_m}) / (tau_{m+1} - tau_m)``. Each is stored as the pair (x, e)
    whose conditional path passes through x_{tau_m} with velocity v_m, so that plain velocity
    regression on these pairs at t = tau_m straightens a model at exactly these times.

    Args:
        num: Number of trajectories, >= 1.
        fine_steps: Euler steps of a trajectory, to whose times those of the sampler are added.
        time_grid: The fine grid.
        label: Name to store the chords under, of letters, digits, _ and -; None = number of steps
            and trajectories, and a digest of all that they depend on.

    Source: Nguyen et al., BOSS, 2023, arXiv 2312.16414: 5,000 trajectories of 100 Euler steps; the
    same on an even grid is their baseline.
    """

    method = CHORDS

    def __init__(
        self,
        *,
        time_grid: TimeGrid,
        num: int = 5000,
        fine_steps: int = 100,
        label: str | None = None,
    ) -> None:
        for name, value in (("num", num), ("fine_steps", fine_steps)):
            if value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        if label is not None and not _PLAIN.fullmatch(label):
            raise ValueError(f"label is {label!r}; expected letters, digits, _ and -")
        self.num, self.fine_steps, self.time_grid, self.label = num, fine_steps, time_grid, label

    def calibrate(self, subject: Subject, *, directory: Path) -> Calibrated:
        times = _distinct_times(subject)
        settings = {
            "num": self.num,
            "fine_steps": self.fine_steps,
            "time_grid": self.time_grid.identity(),
            "times": times.tolist(),
            "batch_size": subject.pipeline.batch_size,
            "asked": subject.config,
        }
        manifest, digest = self.manifest(subject, settings)
        steps = len(times) - 1
        name = self.label or f"{steps}_steps_{self.num}_{digest}"
        file = directory / f"{name}.npz"
        stored = file.with_suffix(".json")
        if stored.is_file():
            made = json.loads(stored.read_text(encoding="utf-8"))
            if short_digest(made) != digest:
                raise ValueError(
                    f"label {name!r} belongs to chords that were made in another way; remove "
                    f"{file} and {stored}, or choose another label"
                )

        def measure(run: RunParts) -> dict[str, Tensor]:
            batches = subject.batches(self.num)
            fine_grid = fine_times(self.time_grid, subject.guided, self.fine_steps)
            fine, places = refined_times(times, fine_grid)
            found = run(
                "trajectories",
                len(batches),
                lambda i: _chords(subject, batches[i], fine, places),
                what="trajectories of",
                unit="batches",
            )
            joined = {key: torch.cat([part[key] for part in found]) for key in found[0]}
            return {"t": times[:-1], **joined}

        beside = f"{name}_{digest}"
        self.measure_once(subject, file, manifest, measure=measure, parts_beside=beside)
        grid = " ".join(f"{time:.3g}" for time in times.tolist())
        summary = [("chords", f"{self.num} trajectories, {steps} steps at {grid}")]
        use = ("coupling=chords", f"coupling.name={name}")
        return Calibrated(file, summary, use, begin="train init")


def _distinct_times(subject: Subject) -> Tensor:
    """The times at which the chosen sampler evaluates the model; all different."""
    sampler = subject.pipeline.sampler
    if not isinstance(sampler, FixedStepSampler):
        name = type(sampler).__name__
        raise ValueError(f"{name} has no times that are known beforehand; use sampler=boss")
    times = sampler.times(subject.guided)
    if not bool((times[:-1] > times[1:]).all()):
        raise ValueError(
            f"{sampler.steps} steps are finer than the model's noise levels; use fewer"
        )
    return times


def _chords(
    subject: Subject, seeds: Sequence[int], fine: Tensor, places: list[int]
) -> dict[str, Tensor]:
    """``x`` and ``e`` (B, K, ...), float32, and the labels (B,), if there are any."""
    refuse_given(subject.pipeline.task, what="chords", key="run")
    trajectory = FineTrajectory.of_seeds(subject, seeds, fine, variable=Time())
    states = trajectory.states[places]
    times = fine[places]
    pairs = []
    for m in range(len(places) - 1):
        velocity = (states[m + 1] - states[m]) / float(times[m + 1] - times[m])
        t = times[m].to(states.device).expand(len(seeds))
        pairs.append(endpoints(subject.model.path, states[m], velocity, t))
    stored = {
        "x": torch.stack([x for x, _ in pairs], dim=1).to(torch.float32),
        "e": torch.stack([e for _, e in pairs], dim=1).to(torch.float32),
    }
    labels = trajectory.field.conditions.get("labels")
    return stored if labels is None else {**stored, "labels": labels}
