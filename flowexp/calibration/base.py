"""The calibration protocol: numbers of a trained model, measured once for a sampler.

They are measured in parts, one file each, which processes share and which survive a kill.
"""

import datetime
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from flowexp.files import write_json, write_npz
from flowexp.models import Model
from flowexp.paths import Prediction
from flowexp.pipeline import Pipeline, Processes
from flowexp.progress import counted, track
from flowexp.samplers import Field, Node, TimeGrid, Variable
from flowexp.samplers.stored_calibrations import identity_of
from flowexp.tree import digest

__all__ = [
    "Calibrated",
    "Calibration",
    "RunParts",
    "Subject",
    "manifest_of",
    "FineTrajectory",
    "fine_times",
]


class RunParts(Protocol):
    """Measures the parts of a calibration."""

    def __call__(
        self,
        name: str,
        count: int,
        measure: Callable[[int], dict[str, Tensor]],
        /,
        *,
        what: str,
        unit: str,
    ) -> list[dict[str, Tensor]]:
        """The tensors of parts 0 to count - 1, on every process.

        ``name`` is the name of their files. Progress is reported as ``what 3 of 121 unit``.
        """


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model and the pipeline that samples it.

    Attributes:
        pipeline: Samples the model; its dataset is read only when needed.
        model: The model without guidance, with its origin.
        seed: Of every random choice.
        processes: The processes that share the work.
        config: Plain config of the calibration and of what the model is sampled with, which tells
            calibrations under another guidance or for another task apart.
    """

    pipeline: Pipeline
    model: Model
    seed: int
    processes: Processes
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def guided(self) -> Model:
        """The model as it is sampled."""
        return self.pipeline.model

    def batches(self, num: int) -> list[range]:
        """The seeds 0 to num - 1, in the parts of the work."""
        size = self.pipeline.batch_size
        return [range(start, min(start + size, num)) for start in range(0, num, size)]


@dataclass(frozen=True)
class Calibrated:
    """The result of a calibration.

    Attributes:
        file: The file with the numbers; its manifest lies beside it, with the suffix ``.json``.
        summary: Names and values for a person.
        use: Overrides of the command that uses it.
        begin: Verb of that command, and its key for the run: ``eval run``, ``train init``.
    """

    file: Path
    summary: Sequence[tuple[str, str]]
    use: Sequence[str]
    begin: str = "eval run"


class Calibration(ABC):
    """A measurement on a trained model, stored for the sampler that needs it.

    It must be resumable: called again after a kill, with the same subject and the same directory,
    it continues and gives the same numbers. With several processes it shares its work over
    ``subject.processes``; the first one writes the result.

    ``method`` is the folder below ``RUN/calibrations`` in which the sampler looks for its files.
    """

    method: str

    @abstractmethod
    def calibrate(self, subject: Subject, *, directory: Path) -> Calibrated:
        """Measure, or continue to, and store a file of numbers with its manifest beside it.

        The directory, ``RUN/calibrations/<method>``, need not exist. Progress is reported by
        :func:`flowexp.progress.track` and its kin; :meth:`measure_once` does so.

        Raises:
            UsageError: The data is missing.
            ValueError: The model, the sampler or the path does not fit the method.
        """

    def measure_once(
        self,
        subject: Subject,
        file: Path,
        manifest: Mapping[str, Any],
        *,
        measure: Callable[[RunParts], Mapping[str, Tensor]],
        parts_beside: str | None = None,
    ) -> None:
        """Measure and store, unless the manifest is there; every process must call this.

        The manifest, written last, lies beside ``file`` as ``.json``. ``measure`` gives the numbers
        on every process; ``parts_beside`` names the hidden folder of its parts, if they depend on
        more than the file's name.
        """
        if file.with_suffix(".json").is_file():
            return
        folder = file.with_name(f".{parts_beside or file.stem}")
        tensors = measure(partial(_run_parts, folder, subject.processes))
        subject.processes.barrier()
        if subject.processes.is_first:
            write_npz(file, {key: tensor.numpy() for key, tensor in tensors.items()})
            write_json(file.with_suffix(".json"), dict(manifest))
            shutil.rmtree(folder, ignore_errors=True)
        subject.processes.barrier()

    def manifest(self, subject: Subject, settings: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """The manifest, and eight hex digits over what the numbers depend on."""
        manifest = manifest_of(subject, method=self.method, settings=settings)
        return manifest, short_digest(manifest)


def manifest_of(subject: Subject, *, method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a calibration in plain builtins.

    A sampler compares its ``identity`` (weights and path) with its model's; ``settings`` are
    everything the numbers depend on besides.
    """
    from flowexp import __version__

    return {
        "method": method,
        "identity": identity_of(subject.model),
        "settings": {"seed": subject.seed, **settings},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "flowexp": __version__,
    }


def short_digest(manifest: Mapping[str, Any]) -> str:
    """Eight hex digits over what the numbers depend on."""
    return digest([manifest["identity"], manifest["settings"]])[:8]


def _run_parts(
    folder: Path,
    processes: Processes,
    name: str,
    count: int,
    measure: Callable[[int], dict[str, Tensor]],
    *,
    what: str,
    unit: str,
) -> list[dict[str, Tensor]]:
    """As :data:`RunParts`: the parts are files in a folder, measured or read back."""
    files = [folder / f"{name}_{i:05d}.npz" for i in range(count)]
    missing = [i for i, file in enumerate(files) if not file.is_file()]
    # Every process sees the same files before the first new one is written.
    processes.barrier()
    with counted(what, total=count, unit=unit) as task:
        task.advance(count - len(missing), made=False)
        for i in processes.share(missing):
            write_npz(files[i], {k: v.cpu().numpy() for k, v in measure(i).items()})
            task.advance(processes.world_size)
    processes.barrier()
    return [_read(file) for file in files]


def _read(file: Path) -> dict[str, Tensor]:
    with np.load(file) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def fine_times(grid: TimeGrid, model: Model, steps: int) -> Tensor:
    """The times of a grid, checked against the model's range."""
    times = grid.times(model, steps)
    low, high = model.time_range
    if float(times[0]) > high * (1 + 1e-12) or float(times[-2]) < low * (1 - 1e-12):
        raise ValueError(f"{grid!r} leaves the range of the model, {low} to {high}")
    return times


@dataclass(frozen=True, eq=False)
class FineTrajectory:
    """Euler states of a batch at all times of a grid, and the velocities that led to them.

    Attributes:
        field: Model, variable and conditions.
        nodes: The grid, P points from the source end to the data end.
        states: (P, B, ...), float64, in the variable's scaling.
        predictions: The model's predictions at all points but the last.
    """

    field: Field
    nodes: Sequence[Node]
    states: Tensor
    predictions: Sequence[Prediction]

    @classmethod
    def of_seeds(
        cls, subject: Subject, seeds: Sequence[int], times: Tensor, *, variable: Variable
    ) -> "FineTrajectory":
        """:meth:`simulate` from the source draws of these seeds, as the model is sampled."""
        start = subject.pipeline.start(seeds)
        return cls.simulate(
            subject.guided, start.e, times, variable=variable, conditions=start.conditions
        )

    @classmethod
    @torch.inference_mode()
    def simulate(
        cls,
        model: Model,
        e: Tensor,
        times: Tensor,
        *,
        variable: Variable,
        conditions: Mapping[str, Tensor | None],
    ) -> "FineTrajectory":
        """Walk a grid, (P,) decreasing float64 times, from ``sigma(t_0) e`` with Euler's method."""
        field = Field(model, variable=variable, conditions=conditions, device=e.device)
        nodes = field.nodes(times)
        z = field.enter(model.path.start(e.to(torch.float64), nodes[0].t), nodes[0])
        states, predictions = [z], []
        steps = track(pairwise(nodes), "fine trajectory", unit="steps", total=len(nodes) - 1)
        for a, b in steps:
            predictions.append(field.predict(z, a))
            z = torch.add(z, variable.slope(predictions[-1]), alpha=b.u - a.u)
            states.append(z)
        return cls(field, nodes, torch.stack(states), predictions)

    def known_node(self, j: int) -> Node:
        """Node j with the prediction at state j, which saves a step from there one call."""
        prediction = self.predictions[j]
        return replace(self.nodes[j], evaluate=lambda x_t, **conditions: prediction)
