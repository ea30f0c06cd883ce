"""Which samples a picture with a row per class shows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowexp.pipeline import GridSamples, SampleBatch, classes_shown
from flowexp.tasks import Generation
from tests.evaluation.tiny import pipeline, task


@pytest.mark.parametrize(
    ("task", "most", "shown"),
    [
        (Generation(num_classes=3), 16, [0, 1, 2]),
        (Generation(num_classes=3), 2, [0, 1]),
        (Generation(num_classes=64), 99, list(range(0, 64, 4))),
        (Generation(num_classes=3, label=1), 16, []),
        (Generation(), 16, []),
    ],
)
def test_rows_are_the_classes_that_are_drawn(task: Generation, most: int, shown: list[int]) -> None:
    assert classes_shown(task, most=most) == shown


def test_classes_without_images_have_no_row() -> None:
    known = Generation(num_classes=4)
    known.classes_without_images = [1]
    assert classes_shown(known) == [0, 2, 3]


def batch(labels: torch.Tensor | None, value: float) -> SampleBatch:
    count = 150 if labels is None else len(labels)
    x = torch.full((count, 1, 3, 3), value)
    conditions = {} if labels is None else {"labels": labels}
    return SampleBatch(list(range(count)), x, torch.ones(count), conditions)


def test_the_first_ten_of_every_class_are_shown(tmp_path: Path) -> None:
    samples = GridSamples(pipeline(task=task()))
    samples.add(batch(torch.arange(30) % 2, -1.0))
    samples.add(batch(torch.arange(30) % 3, float("nan")))
    with Image.open(samples.save(tmp_path / "grid.png")) as image:
        grid = np.asarray(image)
    factor = round(64 / 3)
    assert grid.shape[0] == (3 * 4 + 1) * factor
    cells = grid[:, -(10 * 4 + 1) * factor :][2 * factor :: 4 * factor, 2 * factor :: 4 * factor]
    assert cells.tolist() == [[0] * 10, [0] * 10, [128] * 10]


def test_without_classes_the_first_hundred_are_shown(tmp_path: Path) -> None:
    samples = GridSamples(pipeline(task=Generation()))
    samples.add(batch(None, -1.0))
    samples.add(batch(None, 1.0))
    with Image.open(samples.save(tmp_path / "grid.png")) as image:
        assert image.height == image.width == (10 * 4 + 1) * round(64 / 3)
