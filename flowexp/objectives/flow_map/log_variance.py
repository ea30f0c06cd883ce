"""A learned weight of the errors of a flow map: the logarithm of their variance."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from flowexp.networks.base import zeroed
from flowexp.networks.embedding import MultiScaleEmbedding
from flowexp.objectives.flow_map.error_weights import ErrorWeight
from flowexp.objectives.flow_map.leaps import Leap
from flowexp.objectives.flow_map.legs import Comparison
from flowexp.objectives.weightings import Uniform, Weighting
from flowexp.requirements import Parts, Unmet, within

__all__ = ["LearnedLogVariance"]

_SHORTEST = (
    0.05  # of unit time; errors change fast near the data, and w is never differentiated in t
)


class LearnedLogVariance(ErrorWeight, nn.Module):
    """``prior(t) e^{-w(t, r)} D + w(t, r)`` with a learned w, 0 at first.

    For errors D of mean d(t, r) the best w is ``ln(prior d)``, so that every pair of times counts
    the same, whatever the size of its errors. w is a linear function of waves of both times. It is
    trained by the network's optimizer and stored in checkpoints, but no part of the network. The
    loss can become negative: watch ``error``.

    Args:
        channels: Waves of each time, even.
        prior: Weight of the errors alone, on which w does not act; None = 1.

    Source: Karras et al., EDM2, 2023, arXiv 2312.02696, section 2.2 and eq. 21 (one time); Boffi et
    al., 2025, arXiv 2505.18825 (two times); Lu & Song, sCM, 2024, arXiv 2410.11081, eq. 8 (prior).
    """

    def __init__(self, *, channels: int = 128, prior: Weighting | None = None) -> None:
        nn.Module.__init__(self)
        self.prior = prior or Uniform()
        self.waves = MultiScaleEmbedding(channels, min_period=_SHORTEST)
        self.linear = zeroed(nn.Linear(2 * channels, 1, bias=False))

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """What the prior needs."""
        yield from within("prior", self.prior.needs(parts))

    def __call__(self, error: Tensor, leap: Leap, comparison: Comparison) -> Tensor:
        times = (leap.schedule.unit_time(time) for time in (leap.t, leap.r))
        w = self.log_variance(*times).to(error.dtype)
        prior = self.prior(leap.schedule.coefficients(leap.t))
        return prior.to(error.dtype) * torch.exp(-w) * error + w

    def log_variance(self, t: Tensor, r: Tensor) -> Tensor:
        """The w at unit times t and r of the path, (B,)."""
        waves = torch.cat([self.waves(time.float()) for time in (t, r)], dim=1)
        w: Tensor = self.linear(waves)
        return w[:, 0]
