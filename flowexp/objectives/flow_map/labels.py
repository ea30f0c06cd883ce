"""Label dropout of flow maps: the rows that are trained without label."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flowexp.objectives.flow_map.leaps import Draws
from flowexp.requirements import Part

__all__ = ["DropEach", "DropFirst", "KeepLabels", "LabelDrop"]


class LabelDrop(Part, ABC):
    """The rule by which rows drop their label or caption; their targets are then not guided.

    Attributes:
        label_dropout: Probability of dropping a label.
        uniforms: Number of uniform random numbers per row that it needs.
    """

    label_dropout: float = 0.0
    uniforms: int = 0

    @abstractmethod
    def dropped(self, rows: Draws, allowed: Tensor) -> Tensor:
        """The rows without label, (B,) bool, among ``allowed`` ones; ``rows`` are a whole batch."""


class KeepLabels(LabelDrop):
    """No label is dropped here; the network's own ``label_dropout`` may drop some."""

    def dropped(self, rows: Draws, allowed: Tensor) -> Tensor:
        return torch.zeros_like(allowed)


class _Dropping(LabelDrop):
    uniforms = 1

    def __init__(self, *, label_dropout: float = 0.1) -> None:
        if not 0.0 <= label_dropout < 1.0:
            raise ValueError(f"label_dropout is {label_dropout}; expected a number in [0, 1)")
        self.label_dropout = float(label_dropout)

    def drawn(self, rows: Draws) -> Tensor:
        return rows.uniforms["labels"][:, 0] < self.label_dropout


class DropEach(_Dropping):
    """Every row drops its label independently with one probability, optionally in a window of t.

    Args:
        label_dropout: The probability, in [0, 1).
        start: Labels are dropped for t > start only; a negative number = no limit. alpha-Flow's
            code uses the window in which its targets are guided.
        end: Labels are dropped for t < end only; a number above 1 = no limit.

    Raises:
        ValueError: The probability is out of range, or the window empty.

    Source: Geng et al., MeanFlow, 2025, arXiv 2505.13447 (0.1); Zhang et al., alpha-Flow, 2025,
    arXiv 2510.20771, the authors' code (the window).
    """

    def __init__(
        self, *, label_dropout: float = 0.1, start: float = -1.0, end: float = 2.0
    ) -> None:
        super().__init__(label_dropout=label_dropout)
        if not start < end:
            raise ValueError(f"start is {start}; expected a number below end={end}")
        self.start = float(start)
        self.end = float(end)

    def dropped(self, rows: Draws, allowed: Tensor) -> Tensor:
        return self.drawn(rows) & allowed & (rows.t > self.start) & (rows.t < self.end)


class DropFirst(_Dropping):
    """A binomial number of rows drop their label: rows with r = t first, in their order.

    The number is distributed as with :class:`DropEach`, but nearly all of these rows are
    flow-matching rows. It is drawn for the whole batch, over all processes.

    Args:
        label_dropout: Probability of the binomial distribution, in [0, 1).

    Raises:
        ValueError: The probability is out of range.

    Source: Geng et al., improved MeanFlow, 2025, arXiv 2512.02012: the first version of the
    authors' code, in which rows with r = t come first in a batch. Later versions drop each label
    independently.
    """

    def dropped(self, rows: Draws, allowed: Tensor) -> Tensor:
        count = (self.drawn(rows) & allowed).sum()
        order = torch.argsort((rows.r < rows.t).long() + 2 * (~allowed).long(), stable=True)
        dropped = torch.zeros_like(allowed)
        dropped[order] = torch.arange(len(order), device=order.device) < count
        return dropped
