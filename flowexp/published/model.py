"""A published model as flowexp's parts, plain tensors, and overrides of the training config."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from flowexp.config.override_text import override
from flowexp.errors import UsageError

__all__ = ["Part", "Published", "Reader", "Shape", "published_overrides"]


@dataclass(frozen=True)
class Part:
    """One config group of a stored model.

    Attributes:
        option: For example ``ddpmpp``.
        arguments: Values fixed by the file, by their key within the group.
    """

    option: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    """Shape of the data of a published model.

    Attributes:
        resolution: Height and width in pixels.
        label_dim: Number of classes of the network; 0 = unconditional.
    """

    resolution: int
    channels: int
    label_dim: int


@dataclass(frozen=True, eq=False)
class Published:
    """A published model.

    Attributes:
        parts: The config groups ``network``, ``path``, ``parameterization``, ``sampler`` ...
        weights: The network's state dict under flowexp's names: the raw weights if stored, else
            the averaged ones.
        averaged: The averaged state dict, or None.
        D: Degrees of freedom of the source; ``inf`` for Gaussian.
        notes: Remarks for users of the imported run.
    """

    format: str
    path: Path
    sha256: str
    parts: Mapping[str, Part]
    shape: Shape
    weights: Mapping[str, Tensor]
    averaged: Mapping[str, Tensor] | None
    D: float = math.inf
    kimg: float | None = None
    step: int | None = None
    notes: tuple[str, ...] = ()


class Reader(Protocol):
    """Reads one format of published checkpoints."""

    def read(self, path: Path) -> Published:
        """The model in a file.

        Raises:
            UsageError: The file is damaged, unsafe, or of unknown content.
        """


if TYPE_CHECKING:
    from flowexp.published import Published, Shape

__all__ = ["published_overrides"]

# resolution, channels -> option of the dataset group and its number of classes
_DATASETS: Mapping[tuple[int, int], Sequence[tuple[str, int]]] = {
    (32, 3): (("cifar10", 10),),
    (64, 3): (("imagenet64", 1000), ("ffhq64", 0)),
    (28, 1): (("fashion_mnist", 10),),
    (8, 1): (("digits", 10),),
}


def published_overrides(published: "Published", *, given: Sequence[str] = ()) -> list[str]:
    """Overrides of ``train`` that give the model's config, but for groups chosen in ``given``."""
    chosen = {text.lstrip("+~").partition("=")[0] for text in given}
    own = list(_dataset(published.shape))
    for group, part in published.parts.items():
        own.append(f"{group}={part.option}")
        own += [
            override(f"{group}.{key}", _literal(value)) for key, value in part.arguments.items()
        ]
    columns = published.parts["network"].arguments.get("augment_dim", 0)
    if columns:
        # Its labels stay zero: how the published training augmented is not in the file.
        own += ["augmentation=none", f"augmentation.augment_dim={columns}"]
    own.append("ema=none" if published.averaged is None else "ema=half_life")
    return [text for text in own if re.split(r"[.=/]", text, maxsplit=1)[0] not in chosen]


def _literal(value: object) -> object:
    """A value of the file, which must not be one that a config computes, ``${oc.create:...}``."""
    if "${" in str(value):
        raise UsageError(
            f"the file holds the interpolation {value!r}.", key="file", remedy="Do not trust it."
        )
    return value


def _dataset(shape: "Shape") -> Iterator[str]:
    """A data set of this shape, or the user's own image folder if flowexp has none."""
    for option, classes in _DATASETS.get((shape.resolution, shape.channels), ()):
        if shape.label_dim == classes or (shape.label_dim == 0 and option != "imagenet64"):
            yield f"dataset={option}"
            return
    labelled = shape.label_dim > 0
    yield "dataset=image_folder"
    yield f"dataset.archive=images-{shape.resolution}x{shape.resolution}.zip"
    yield f"dataset.resolution={shape.resolution}"
    yield f"dataset.channels={shape.channels}"
    yield f"dataset.num_classes={shape.label_dim}"
    yield f"dataset.use_labels={str(labelled).lower()}"
    yield "dataset.class_names=null"
