"""The image data sets of torchvision that flowexp reads, and their properties.

A stored config may name these and no other class; torchvision checks what it unpickles (CIFAR)
against the publisher's digests.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowexp.config.problems import did_you_mean
from flowexp.errors import UsageError

__all__ = ["SETS", "TorchvisionSet", "channels", "known_set", "num_classes", "resolution"]


def _by(key: str, train: object, heldout: object) -> dict[str, Mapping[str, object]]:
    return {"train": {key: train}, "heldout": {key: heldout}}


_TRAIN = _by("train", True, False)
_TEST = _by("split", "train", "test")
_TRAINVAL = _by("split", "trainval", "test")


@dataclass(frozen=True)
class TorchvisionSet:
    """Properties of a data set.

    Attributes:
        num_classes: Number of classes.
        resolution: Width and height of all images; None if they have several sizes.
        channels: 1 for grey, 3 for colour.
        splits: Arguments of torchvision's class for ``train`` and, if there is one, ``heldout``.
    """

    num_classes: int
    resolution: int | None = None
    channels: int = 3
    splits: Mapping[str, Mapping[str, object]] = field(default_factory=lambda: _TEST)


SETS = {
    "CIFAR10": TorchvisionSet(10, 32, splits=_TRAIN),
    "CIFAR100": TorchvisionSet(100, 32, splits=_TRAIN),
    "Country211": TorchvisionSet(211),
    "DTD": TorchvisionSet(47),
    "EuroSAT": TorchvisionSet(10, 64, splits={"train": {}}),
    "FGVCAircraft": TorchvisionSet(100, splits=_TRAINVAL),
    "FashionMNIST": TorchvisionSet(10, 28, 1, splits=_TRAIN),
    "Flowers102": TorchvisionSet(102),
    "Food101": TorchvisionSet(101),
    "GTSRB": TorchvisionSet(43),
    "Imagenette": TorchvisionSet(10, splits=_by("split", "train", "val")),
    "KMNIST": TorchvisionSet(10, 28, 1, splits=_TRAIN),
    "MNIST": TorchvisionSet(10, 28, 1, splits=_TRAIN),
    "OxfordIIITPet": TorchvisionSet(37, splits=_TRAINVAL),
    "QMNIST": TorchvisionSet(10, 28, 1, splits=_TRAIN),
    "STL10": TorchvisionSet(10, 96),
    "SUN397": TorchvisionSet(397, splits={"train": {}}),
    "SVHN": TorchvisionSet(10, 32),
    "StanfordCars": TorchvisionSet(196),
    "USPS": TorchvisionSet(10, 16, 1, splits=_TRAIN),
}
"""The data sets by the names of torchvision's classes."""


def known_set(name: str) -> TorchvisionSet:
    """A data set by its name.

    Raises:
        UsageError: It is none of ``SETS``.
    """
    if name not in SETS:
        raise UsageError(
            f"unknown data set {name!r}.",
            key="dataset.name",
            remedy=did_you_mean(name, SETS),
        )
    return SETS[name]


def resolution(name: str) -> int:
    """The width of all images.

    Raises:
        UsageError: They have several sizes, so that one must be chosen.
    """
    found = known_set(name).resolution
    if found is None:
        raise UsageError(
            f"the images of {name} have several sizes.",
            key="dataset.resolution",
            remedy="Choose one: dataset.resolution=64.",
        )
    return found


def channels(name: str) -> int:
    """1 for grey, 3 for colour."""
    return known_set(name).channels


def num_classes(name: str) -> int:
    """The number of classes."""
    return known_set(name).num_classes
