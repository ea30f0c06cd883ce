"""Conditional paths with noise of their own between the two ends: bridges.

``z = alpha x + sigma e + gamma(t) eps``, ``v = alpha' x + sigma' e + gamma'(t) eps`` with
``eps ~ N(0, I)`` independent of the pair. The marginal velocity E[v | z] generates the marginals of
z. On such a path z is not ``alpha x + sigma e``, so a velocity cannot be converted into data or
noise; bridges are therefore trained and sampled by velocity only.
"""

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.paths.base import as_float64
from flowexp.paths.path import Path, PathPoint

__all__ = ["BridgeNoise", "BrownianNoise", "ConstantNoise", "bridge_point"]


class BridgeNoise(ABC):
    """The standard deviation gamma(t) of the bridge's own noise.

    Args:
        scale: Size of the noise, >= 0; 0 is the path without a bridge.
        guard: Added to denominators that vanish, >= 0; 1e-8 in the authors' code, 0 is the exact
            formula.

    Source: Tong et al., Improving and generalizing flow-based generative models, 2023, arXiv
    2302.00482: I-CFM has :class:`ConstantNoise`, SB-CFM :class:`BrownianNoise`.
    """

    def __init__(self, scale: float, *, guard: float = 1e-8) -> None:
        if not scale >= 0.0:
            raise ValueError(f"scale is {scale}; expected a number >= 0")
        if not guard >= 0.0:
            raise ValueError(f"guard is {guard}; expected a number >= 0")
        self.scale = float(scale)
        self.guard = float(guard)

    @abstractmethod
    def std(self, t: Tensor) -> Tensor:
        """Gamma at float64 times ``t`` in [0, 1]."""

    @abstractmethod
    def d_std(self, t: Tensor) -> Tensor:
        """Derivative of gamma with respect to t."""

    def score_weight(self, t: Tensor) -> Tensor:
        """``2 gamma / (scale^2 + guard)``: what makes the score head's target ``-eps``.

        Source: Tong et al., Simulation-free Schroedinger bridges, 2023, arXiv 2307.03672
        ([SF]^2M).
        """
        return 2.0 * self.std(as_float64(t)) / (self.scale**2 + self.guard)


class ConstantNoise(BridgeNoise):
    """``gamma = scale`` at all times: conditional flow matching with smoothed ends (I-CFM).

    The target is e - x, without the added noise.
    """

    def std(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.scale)

    def d_std(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)


class BrownianNoise(BridgeNoise):
    """``gamma = scale sqrt(t (1 - t))``: a Brownian motion of this scale, pinned at both ends.

    With pairs from the entropic plan of ``reg = 2 scale^2`` its marginals are those of the
    Schroedinger bridge. ``gamma' = scale (1 - 2t) / (2 sqrt(t (1 - t)))`` grows like 1/sqrt at both
    ends; the authors' code bounds it by ``guard`` in ``(1 - 2t) / (2 t (1 - t) + guard) gamma``.
    """

    def std(self, t: Tensor) -> Tensor:
        # A distribution of sigma / alpha reaches beyond t = 1 on paths that end before pure noise.
        return self.scale * torch.sqrt((t * (1.0 - t)).clamp(min=0.0))

    def d_std(self, t: Tensor) -> Tensor:
        return (1.0 - 2.0 * t) / (2.0 * t * (1.0 - t) + self.guard) * self.std(t)


def bridge_point(
    path: Path, noise: BridgeNoise, *, x: Tensor, e: Tensor, t: Tensor, eps: Tensor
) -> PathPoint:
    """The point ``x_t = alpha x + sigma e + gamma eps`` of a bridge over ``path``.

    The path's time must run over [0, 1]; ``eps`` are standard normal draws, (B, ...) as x and e.
    """
    point = path.point(x, e, t)
    std, d_std = noise.std(point.t), noise.d_std(point.t)
    return replace(
        point,
        x_t=point.x_t + expand_as(std, x) * eps,
        velocity=point.velocity + expand_as(d_std, x) * eps,
    )
