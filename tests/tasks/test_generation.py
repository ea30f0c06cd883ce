"""Labels belong to seeds."""

import pytest
import torch

from flowexp.tasks import Generation


def test_without_classes_nothing_is_conditioned() -> None:
    assert Generation(num_classes=0).conditions([0, 1]) == {}


def test_a_label_depends_on_its_seed_alone() -> None:
    task = Generation(num_classes=10)
    whole = task.conditions(range(100))["labels"]
    parts = [task.conditions([seed])["labels"] for seed in range(100)]
    assert whole is not None
    assert whole.dtype == torch.int64
    assert torch.equal(whole, torch.cat([part for part in parts if part is not None]))


@pytest.mark.statistical
def test_labels_are_uniform() -> None:
    """Chi-square of 2000 labels in 10 classes; 33.7 is exceeded by chance once in 10,000 tests."""
    labels = Generation(num_classes=10).conditions(range(2000))["labels"]
    assert labels is not None
    counts = torch.bincount(labels, minlength=10)
    assert float(((counts - 200.0) ** 2 / 200.0).sum()) < 33.7


def test_classes_without_images_are_never_drawn() -> None:
    task = Generation(num_classes=6)
    before = task.conditions(range(200))["labels"]
    task.classes_without_images = [0, 3]
    labels = task.conditions(range(200))["labels"]
    task.classes_without_images = []
    again = task.conditions(range(200))["labels"]
    assert before is not None
    assert labels is not None
    assert again is not None
    assert set(labels.tolist()) == {1, 2, 4, 5}
    assert torch.equal(before, again)


@pytest.mark.parametrize("label", [-1, 3])
def test_one_class_for_all(label: int) -> None:
    labels = Generation(num_classes=10, label=label).conditions([5, 6, 7])["labels"]
    assert labels is not None
    assert labels.tolist() == [label] * 3


@pytest.mark.parametrize(
    ("num_classes", "label", "message"),
    [
        (10, 10, r"task\.label is 10; allowed: -1 to 9"),
        (0, 0, r"task\.label is 0; allowed: null, there are no classes"),
        (-1, None, "num_classes is -1"),
    ],
)
def test_impossible_classes_are_refused(num_classes: int, label: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Generation(num_classes=num_classes, label=label)
