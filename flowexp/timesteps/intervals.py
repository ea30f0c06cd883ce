"""Pairs of times r <= t for flow maps."""

import torch
from torch import Tensor

from flowexp.paths import Schedule
from flowexp.timesteps.base import IntervalDistribution, TimestepDistribution

__all__ = ["Sorted"]


class Sorted(IntervalDistribution):
    """``t = max(a, b)``, ``r = min(a, b)`` of two independent draws from one law.

    Args:
        law: The law of both; uniform makes them order statistics.
        diagonal: Share of the rows with r = t, in [0, 1]. MeanFlow's CIFAR-10 recipe has 0.25, its
            ImageNet recipe 0.75, improved MeanFlow 0.5.

    Source: Geng et al., MeanFlow, 2025, arXiv 2505.13447, section 4.3; Boffi et al., 2025, arXiv
    2505.18825 (uniform).
    """

    ends_early = True

    def __init__(self, law: TimestepDistribution, *, diagonal: float = 0.0) -> None:
        super().__init__(diagonal=diagonal)
        self.law = law
        self.in_nsr = law.in_nsr
        self.drawn_end = None if law.drawn_end is None else f"law.{law.drawn_end}"

    @property
    def support(self) -> tuple[float, float]:
        return self.law.support

    def quantile(self, u: Tensor, *, schedule: Schedule) -> Tensor:
        times = self.law.times(u, schedule=schedule)
        return torch.stack([times.amax(1), times.amin(1)], dim=1)
