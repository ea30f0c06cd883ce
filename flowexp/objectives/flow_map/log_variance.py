"""A loss weight that is learned with the network."""

import torch
from torch import Tensor, nn

from flowexp.networks.embedding import PositionalEmbedding
from flowexp.objectives.flow_map.error_weights import ErrorWeight
from flowexp.objectives.flow_map.leaps import Leap
from flowexp.objectives.flow_map.legs import Comparison

__all__ = ["LearnedLogVariance"]


class LearnedLogVariance(ErrorWeight, nn.Module):
    """``e^{-w} D + w`` with a trained ``w(t, r)``, least where w is ``ln E[D | t, r]``.

    ``w = W (waves(t) + waves(r))`` with fixed sinusoids: a sum of one function at both times, as in
    the authors' code. W is 0 at first, so that training begins with D itself (they draw W). It is
    trained by the network's optimizer and kept in checkpoints, but is no part of the network. The
    loss can become negative; the logged ``error`` is the mean of D.

    Args:
        channels: Number of sinusoids, even.

    Source: Karras et al., EDM2, 2023, arXiv 2312.02696 (a function of sigma there); Boffi et al.,
    2025, arXiv 2505.18825, and their ``edm2_net.py`` (128 channels).
    """

    def __init__(self, *, channels: int = 128) -> None:
        super().__init__()
        self.waves = PositionalEmbedding(channels)
        self.linear = nn.Linear(channels, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def __call__(self, error: Tensor, leap: Leap, comparison: Comparison) -> Tensor:
        w = self.log_variance(leap.t, leap.r).to(error.dtype)
        return error * torch.exp(-w) + w

    def log_variance(self, t: Tensor, r: Tensor) -> Tensor:
        """w, (B,)."""
        waves = (self.waves(t) + self.waves(r)).to(self.linear.weight.dtype)
        w: Tensor = self.linear(waves)
        return w[:, 0]
