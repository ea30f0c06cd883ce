"""A published model as flowexp's parts and plain tensors."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

__all__ = ["Part", "Published", "Reader", "Shape"]


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
