"""The samples of a grid with one row per class."""

from pathlib import Path

import torch
from torch import Tensor

from flowexp.pipeline.beside import with_given
from flowexp.pipeline.images import save_grid
from flowexp.pipeline.pipeline import Pipeline, SampleBatch
from flowexp.tasks import Task

__all__ = ["GridSamples", "classes_shown"]

_MOST_ROWS = 16
_PER_CLASS = 10
_WITHOUT_CLASSES = 100


def classes_shown(task: Task, *, most: int = _MOST_ROWS) -> list[int]:
    """The classes of a grid's rows: all classes of the task, or evenly spaced ones.

    There are at most ``most`` and at most 16, and none if the task draws no classes.
    """
    classes = task.classes if task.draws_classes else []
    count = min(len(classes), most, _MOST_ROWS)
    return [classes[i * len(classes) // count] for i in range(count)]


class GridSamples:
    """Collects samples for a grid from batches: the first ten per shown class, or the first 100.

    Args:
        pipeline: The pipeline that draws the samples.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.class_names = pipeline.class_names
        self._task = pipeline.task
        self._seeds: list[int] = []
        self._missing: dict[int | None, int]
        self._missing = dict.fromkeys(classes_shown(pipeline.task), _PER_CLASS)
        self._of_any_class = 0 if self._missing else _WITHOUT_CLASSES
        self._x: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, batch: SampleBatch) -> None:
        """Take the samples that are still missing."""
        labels = batch.conditions.get("labels")
        of_classes = [None] * len(batch.x) if labels is None else labels.tolist()
        chosen = [i for i, label in enumerate(of_classes) if self._takes(label)]
        self._x.append(batch.x[chosen].cpu())
        self._seeds += [batch.seeds[i] for i in chosen]
        if labels is not None:
            self._labels.append(labels[chosen].cpu())

    def _takes(self, label: int | None) -> bool:
        if label in self._missing:
            self._missing[label] -= 1
            return self._missing[label] >= 0
        self._of_any_class -= 1
        return self._of_any_class >= 0

    def save(self, path: Path) -> Path:
        """Write them as one PNG with :func:`save_grid`; values that are not finite become grey."""
        x = torch.cat(self._x).nan_to_num(0.0, posinf=0.0, neginf=0.0)
        shown = with_given(self._task, self._seeds, x)
        if shown is not None:
            return save_grid(path, shown.images, columns=shown.columns)
        labels = torch.cat(self._labels) if self._labels else None
        return save_grid(path, x, labels=labels, class_names=self.class_names)
