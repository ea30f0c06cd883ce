"""Regression of the unknown part of images of which the rest is given."""

from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.couplings import Pairs
from flowexp.objectives.regression import Regression
from flowexp.requirements import Parts, Unmet, all_of

__all__ = ["MaskedRegression"]


class MaskedRegression(Regression):
    """``weight(t) premetric(m (prediction - truth))`` with m = 0 where the pixel is known, else 1.

    Known pixels are conditions, not to be predicted. The mean of the squared deviation is over all
    pixels, so that every unknown one counts alike in all images of a batch. Arguments are those of
    :class:`Regression`.

    Source: Li et al., MAR, 2024, arXiv 2406.11838 (the loss is that of the unknown tokens).
    """

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network that is given a mask, besides what every regression needs."""
        yield from all_of(super().needs(parts), self._mask(parts))

    def _mask(self, parts: Parts) -> Iterator[Unmet]:
        taken = parts.network.condition_dropout
        if taken is not None and "mask" not in taken:
            problem = f"{type(self).__name__} leaves out what a mask says is known, but the network"
            yield Unmet(".", f"{problem} takes none.", "Use network=mar task=masked_tokens.")

    def counted(self, difference: Tensor, pairs: Pairs) -> Tensor:
        """The deviation, 0 where the condition ``mask``, (B, 1, H, W), says "known": < 0.

        Raises:
            ValueError: The pairs have no mask.
        """
        mask = pairs.conditions.get("mask")
        if mask is None:
            raise ValueError("the pairs have no mask; use task=masked_tokens")
        return torch.where(mask < 0.0, torch.zeros_like(difference), difference)
