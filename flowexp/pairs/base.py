"""The protocol of pair makers: from seeds or data to pairs of noise and data."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from flowexp.pipeline import Pipeline

__all__ = ["PairMaker"]

Array = npt.NDArray[Any]


class PairMaker(ABC):
    """The rule by which seeds (or positions in a data set) become pairs.

    Attributes:
        identity: Name of the column that identifies a pair: ``seeds`` or ``index``.
        needs_data: Whether the data set's training split is read.
        first: First seed or position, where none are named.
    """

    identity: str = "seeds"
    needs_data: bool = False
    first: int = 0

    @abstractmethod
    def check(self, teacher: Pipeline) -> None:
        """Raise ``ValueError`` for a teacher that does not fit this rule."""

    @abstractmethod
    def formats(self, teacher: Pipeline) -> tuple[str, str]:
        """Storage of images (``uint8``, ``float32``) and of noise (``seeds``, ``arrays``)."""

    @abstractmethod
    def label_distribution(self, teacher: Pipeline) -> str:
        """The distribution of the labels in words; ``none`` without."""

    @abstractmethod
    def make(self, teacher: Pipeline, members: npt.NDArray[np.int64]) -> dict[str, Array]:
        """The columns of the pairs with these seeds or positions, (n,); a function of them alone.

        They are ``images``, ``nfe``, the column of :attr:`identity`, and where there are any
        ``labels`` and ``noise``.
        """
