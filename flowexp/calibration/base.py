"""The calibration protocol: numbers of a trained model, measured once for a sampler."""

import datetime
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowexp.models import Model
from flowexp.pipeline import Pipeline, Processes
from flowexp.samplers.stored_calibrations import identity_of

__all__ = ["Calibrated", "Calibration", "Progress", "Subject", "manifest_of"]

Progress = Callable[[str], None]
"""Called with one line about what has just been done."""


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
            progress: Called about finished parts.

        Raises:
            UsageError: The data is missing.
            ValueError: The model, the sampler or the path does not fit the method.
        """


def manifest_of(subject: Subject, *, method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a calibration in plain builtins.

    A sampler compares its ``identity`` (weights and path) with its model's.

    Args:
        subject: The model and its pipeline.
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
