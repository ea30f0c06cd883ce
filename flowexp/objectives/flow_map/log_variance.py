"""Learned log-variance weighting of the errors of a flow map."""

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
    """Learned log-variance weighting ``prior(t) e^{-w(t, r)} D + w(t, r)``, with w = 0 at first.

    For errors D of mean d(t, r) the optimal w is ``ln(prior d)``, so that every pair of times
    contributes equally, whatever the scale of its errors. w is linear in sinusoidal features of
    both times. It is trained by the network's optimizer and stored in checkpoints, but is not part
    of the network. The loss can become negative: monitor the metric ``error`` instead.

    Args:
        channels: Number of features of each time, even.
        prior: Weighting of the errors that multiplies D only; None = 1.

    Source: Karras et al., EDM2, 2023, arXiv 2312.02696, section 2.2 and eq. 21 (one time); Boffi et
    al., 2025, arXiv 2505.18825 (two times); Lu & Song, sCM, 2024, arXiv 2410.11081, eq. 8 (prior).
    """

    def __init__(self, *, channels: int = 128, prior: Weighting | None = None) -> None:
        nn.Module.__init__(self)
        self.prior = prior or Uniform()
        self.waves = MultiScaleEmbedding(channels, min_period=_SHORTEST)
        self.linear = zeroed(nn.Linear(2 * channels, 1, bias=False))

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """The requirements of the prior."""
        yield from within("prior", self.prior.needs(parts))

    def __call__(self, error: Tensor, leap: Leap, comparison: Comparison) -> Tensor:
        times = (leap.schedule.unit_time(time) for time in (leap.t, leap.r))
        w = self.log_variance(*times).to(error.dtype)
        prior = self.prior(leap.schedule.coefficients(leap.t))
        return prior.to(error.dtype) * torch.exp(-w) * error + w

    def log_variance(self, t: Tensor, r: Tensor) -> Tensor:
        """The log-variance w at the path's unit times t and r, (B,)."""
        waves = torch.cat([self.waves(time.float()) for time in (t, r)], dim=1)
        w: Tensor = self.linear(waves)
        return w[:, 0]
