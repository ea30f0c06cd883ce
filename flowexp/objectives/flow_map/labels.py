"""Label dropout of flow maps: which rows are trained without label, for guidance and in targets."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flowexp.objectives.flow_map.leaps import Leap
from flowexp.requirements import Part

__all__ = ["DropEach", "DropFirst", "KeepLabels", "LabelDrop"]


class LabelDrop(Part, ABC):
    """Which rows lose their label or caption; their target is then not guided.

    Attributes:
        label_dropout: The probability of it.
        uniforms: How many random numbers per row it needs.
    """

    label_dropout: float = 0.0
    uniforms: int = 0

    @abstractmethod
    def dropped(self, leap: Leap, allowed: Tensor) -> Tensor:
        """The rows without label, (B,) bool, among the ``allowed`` ones."""


class KeepLabels(LabelDrop):
    """None is dropped here; the network's own ``label_dropout`` may drop some."""

    def dropped(self, leap: Leap, allowed: Tensor) -> Tensor:
        return torch.zeros_like(allowed)


class _Dropping(LabelDrop):
    uniforms = 1

    def __init__(self, *, label_dropout: float = 0.1) -> None:
        if not 0.0 <= label_dropout < 1.0:
            raise ValueError(f"label_dropout is {label_dropout}; expected a number in [0, 1)")
        self.label_dropout = float(label_dropout)

    def drawn(self, leap: Leap) -> Tensor:
        return leap.uniforms["labels"][:, 0] < self.label_dropout


class DropEach(_Dropping):
    """Every row with the same probability, independently; on request only for t in a window.

    Args:
        label_dropout: The probability, in [0, 1).
        start: Labels are dropped for t > start only; alpha-Flow's code drops inside the window in
            which its targets are guided.
        end: And for t < end only. Below 0 and above 1 mean no limit.

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

    def dropped(self, leap: Leap, allowed: Tensor) -> Tensor:
        return self.drawn(leap) & allowed & (leap.t > self.start) & (leap.t < self.end)


class DropFirst(_Dropping):
    """A binomial number of rows, those with r = t first, in their order.

    A batch of n has as many as n draws of :class:`DropEach` would have, but nearly all of them are
    flow-matching rows. The count is that of the rows a process handles at once.

    Args:
        label_dropout: Probability of the binomial distribution, in [0, 1).

    Source: Geng et al., improved MeanFlow, 2025, arXiv 2512.02012: the authors' code in its first
    version, where rows with r = t are the first of the batch; later it drops each row by itself.
    """

    def dropped(self, leap: Leap, allowed: Tensor) -> Tensor:
        count = (self.drawn(leap) & allowed).sum()
        order = torch.argsort((leap.r < leap.t).long() + 2 * (~allowed).long(), stable=True)
        dropped = torch.zeros_like(allowed)
        dropped[order] = torch.arange(len(order), device=order.device) < count
        return dropped
