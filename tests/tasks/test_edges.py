"""Edges: the map of a known image, in training and of the image that a sample belongs to."""

import numpy as np
import pytest
import torch

from flowexp.data import DataBatch, ImageArrays, as_data
from flowexp.data.base import Dataset
from flowexp.networks.conditions import Image
from flowexp.tasks import Edges
from flowexp.tasks.edges import edge_map


class Few(Dataset):
    """Five held-out images, or none."""

    def __init__(self, held: int = 5) -> None:
        super().__init__(name="few", shape=(2, 6, 6), num_classes=3)
        self.held = held

    def locate(self) -> None:
        """There are no files."""

    def _read(self) -> ImageArrays:
        return self.arrays(3, "few/train")

    def _read_heldout(self) -> ImageArrays | None:
        return self.arrays(self.held, "few/heldout") if self.held else None

    def arrays(self, count: int, name: str) -> ImageArrays:
        rng = np.random.default_rng(count)
        images = rng.integers(0, 256, (count, 2, 6, 6)).astype(np.uint8)
        return ImageArrays.of(images, np.arange(count) % 3, num_classes=3, name=name)


def edges(held: int = 5, **options: object) -> Edges:
    inputs = {"image": Image(channels=2)}
    return Edges(**{"dataset": Few(held), "inputs": inputs, "num_classes": 3} | options)


@pytest.mark.parametrize("across", [True, False])
def test_a_step_has_its_edge_where_it_is(across: bool) -> None:
    """A step of height 2 between columns 2 and 3: 8/8 on both sides of it, 0 elsewhere."""
    x = torch.full((1, 1, 6, 6), -1.0)
    x[..., 3:] = 1.0
    x = x if across else x.transpose(2, 3)
    expected = torch.full((6, 6), -1.0)
    expected[:, 2:4] = 1.0
    expected = expected if across else expected.T
    for threshold in (None, 0.5, 1.0):
        assert torch.equal(edge_map(x, threshold=threshold)[0, 0], expected)
    half = edge_map(0.5 * x, threshold=None)[0, 0]
    assert torch.equal(half, torch.where(expected > 0, 0.0, -1.0))


def test_the_map_is_the_same_in_all_channels_and_nowhere_none() -> None:
    x = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = edge_map(x, threshold=0.2)
    assert found.shape == x.shape
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert set(found.unique().tolist()) == {-1.0, 1.0}
    assert bool((edge_map(torch.zeros(1, 1, 4, 4), threshold=0.2) == -1.0).all())


def test_in_training_the_edges_are_those_of_the_batch() -> None:
    x = torch.rand(4, 2, 6, 6) * 2 - 1
    labels = torch.tensor([0, 1, 2, -1])
    batch = DataBatch(x, labels, torch.arange(4))
    found = edges(threshold=None).of_data(batch, x, labels, rng=torch.Generator())
    assert torch.equal(found["labels"], labels)
    assert torch.equal(found["image"], edge_map(x, threshold=None))


def test_the_edges_of_a_sample_are_those_of_its_image() -> None:
    task = edges()
    found = task.conditions([7, 0, 2])
    assert torch.equal(found["image"], edge_map(as_data(task.targets([7, 0, 2])), threshold=0.2))
    assert torch.equal(task.beside(found)[0], found["image"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"inputs": {}}, "inputs is empty; allowed: image"),
    ],
)
def test_impossible_values_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        edges(**options)
