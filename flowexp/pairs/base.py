"""What makes pairs: a teacher, and the end at which each pair begins."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from flowexp.data import ImageArrays
from flowexp.evaluation import Latents
from flowexp.guidance import Guidance
from flowexp.models import Model
from flowexp.samplers import Sampler
from flowexp.tasks import Task

__all__ = ["PairMaker", "Teacher"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained flow and how it is asked.

    Attributes:
        model: What predicts, in evaluation mode on ``device``.
        sampler: How it is integrated.
        shape: Shape of a sample.
        guidance: Wraps the model; it becomes part of the pairs.
        task: Gives the conditions.
        latents: How seeds become draws.
        data: The data set's training split, for makers that need it.
        batch_size: Pairs per call of the sampler.
        device: Where to compute.
    """

    model: Model
    sampler: Sampler
    shape: tuple[int, ...]
    guidance: Guidance
    task: Task
    latents: Latents
    data: ImageArrays | None = None
    batch_size: int = 256
    device: torch.device | str = "cpu"

    def required_data(self) -> ImageArrays:
        """The data set's training split.

        Raises:
            ValueError: It was not given.
        """
        if self.data is None:
            raise ValueError("these pairs begin at real data, but the teacher has no data set")
        return self.data


class PairMaker(ABC):
    """The rule by which seeds (or positions in a data set) become pairs.

    Attributes:
        identity: Name of the column that says who a pair is: ``seeds`` or ``index``.
        needs_data: Whether the data set's training split is read.
        first: First seed or position, where none are named.
    """

    identity: str = "seeds"
    needs_data: bool = False
    first: int = 0

    @abstractmethod
    def check(self, teacher: Teacher) -> None:
        """Refuse a teacher that this rule cannot ask, before anything is computed.

        Raises:
            ValueError: One sentence that names both.
        """

    @abstractmethod
    def formats(self, teacher: Teacher) -> tuple[str, str]:
        """How images (``uint8``, ``float32``) and noise (``seeds``, ``arrays``) are stored."""

    @abstractmethod
    def labels_law(self, teacher: Teacher) -> str:
        """The law of the labels in words; ``none`` without."""

    @abstractmethod
    def make(self, teacher: Teacher, members: npt.NDArray[np.int64]) -> dict[str, Array]:
        """The columns of the pairs with these seeds or positions; a function of them alone.

        Args:
            teacher: Who is asked.
            members: (n,), int64; batches are made in this order.

        Returns:
            ``images``, ``nfe``, the column of :attr:`identity`, and where there are any ``labels``
            and ``noise``.
        """
