"""Grids show each sample between what it was given and its target."""

import numpy as np
import pytest
import torch
from PIL import Image

from flowexp.data import as_data
from flowexp.pipeline import GridSamples, SampleBatch, save_grid, with_given
from flowexp.tasks import Generation
from tests.evaluation.tiny import pipeline
from tests.tasks.pictures import TASKS


@pytest.mark.parametrize(
    ("kind", "width"),
    [("inpainting", 3), ("paired_image", 3), ("semantic_map", 3), ("class_examples", 5)],
)
def test_a_group_is_what_was_given_the_sample_and_the_target(kind, width):
    task = TASKS[kind]()
    x = torch.linspace(-1, 1, 20 * 36).reshape(20, 1, 6, 6)
    shown = with_given(task, range(20), x)
    groups = shown.images.unflatten(0, (20, width))
    assert shown.columns % width == 0
    assert shown.columns < 20 * width
    given = task.beside(task.conditions(range(20)))
    assert torch.equal(groups[:, : len(given)], torch.stack(given, dim=1))
    assert torch.equal(groups[:, len(given)], x)
    if kind != "class_examples":
        assert torch.equal(groups[:, -1], as_data(task.targets(range(20))))
    assert groups.abs().max() <= 1.0


def test_without_anything_beside_there_is_no_such_grid():
    assert with_given(Generation(num_classes=3), range(2), torch.zeros(2, 1, 6, 6)) is None


def test_grey_images_stand_beside_samples_in_colour():
    shown = with_given(TASKS["semantic_map"](), range(2), torch.zeros(2, 3, 6, 6))
    assert shown.images.shape == (6, 3, 6, 6)
    assert torch.equal(shown.images[0, 0], shown.images[0, 2])


def test_images_of_another_size_are_left_out():
    shown = with_given(TASKS["paired_image"](), range(2), torch.zeros(2, 1, 4, 4))
    assert shown is None


def test_the_grid_of_an_evaluation_has_them(tmp_path):
    task = TASKS["inpainting"]()
    samples = GridSamples(pipeline(task=task))
    for seeds in ([0, 1], [2, 3]):
        conditions = task.conditions(seeds)
        x = torch.full((2, 1, 6, 6), -1.0)
        samples.add(SampleBatch(seeds, x, torch.ones(2), conditions, task.targets(seeds)))
    shown = with_given(task, range(4), torch.full((4, 1, 6, 6), -1.0))
    expected = save_grid(tmp_path / "expected.png", shown.images, columns=shown.columns)
    with Image.open(samples.save(tmp_path / "grid.png")) as a, Image.open(expected) as b:
        assert np.array_equal(np.asarray(a), np.asarray(b))
