"""What a calibration answers: which numbers of a trained model a sampler wants to know."""

import datetime
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowexp.data import Dataset
from flowexp.evaluation import Latents, Processes
from flowexp.guidance import Guidance
from flowexp.models import Model
from flowexp.samplers import Sampler
from flowexp.samplers.stored_calibrations import identity_of
from flowexp.tasks import Task

__all__ = ["Calibrated", "Calibration", "Progress", "Subject", "manifest_of"]

Progress = Callable[[str], None]
"""Told in one line what has just been done."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model, and all that an evaluation of it would use.

    Attributes:
        model: The model without guidance, in evaluation mode, on ``device``, with its origin.
        guidance: Wraps the model when it samples.
        sampler: The chosen sampler, with its steps and its time grid.
        task: Gives the conditions of samples.
        dataset: What it was trained on; read only when asked.
        latents: How seeds become source draws.
        device: Where to compute.
        batch_size: Samples per network call, >= 1.
        seed: Of every random choice.
        processes: Who shares the work.
        asked: Plain config of the calibration and of what the model is sampled with, for manifests
            and for telling apart what was measured under another guidance or for another task.
    """

    model: Model
    guidance: Guidance
    sampler: Sampler
    task: Task
    dataset: Dataset
    latents: Latents
    device: str
    batch_size: int
    seed: int
    processes: Processes
    asked: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; allowed: integers >= 1")

    @property
    def guided(self) -> Model:
        """The model as it is sampled from."""
        return self.guidance.wrap(self.model)

    def batches(self, num: int) -> list[range]:
        """The seeds 0 to num - 1, in the parts of the work."""
        starts = range(0, num, self.batch_size)
        return [range(start, min(start + self.batch_size, num)) for start in starts]


@dataclass(frozen=True)
class Calibrated:
    """What a calibration made.

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

    Attributes:
        method: Folder below ``RUN/calibrations`` in which the sampler looks for its files.
    """

    method: str

    @abstractmethod
    def calibrate(self, subject: Subject, *, directory: Path, progress: Progress) -> Calibrated:
        """Measure, or continue to, and store a file of numbers with its manifest beside it.

        Args:
            subject: The model and what it is sampled with.
            directory: ``RUN/calibrations/<method>``; it need not exist.
            progress: Told about finished parts.

        Raises:
            UsageError: The data is missing.
            ValueError: The model, the sampler or the path does not fit the method.
        """


def manifest_of(subject: Subject, *, method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a calibration in plain builtins.

    Its ``identity`` (weights and path) is what a sampler compares with the model in hand.

    Args:
        subject: What is calibrated.
        method: The calibration's method.
        settings: Everything the numbers depend on besides model and path.
    """
    from flowexp import __version__

    return {
        "method": method,
        "identity": identity_of(subject.model),
        "settings": {"seed": subject.seed, **settings},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "flowexp": __version__,
    }
