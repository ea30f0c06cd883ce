"""Times shared by the particles of a group, for inductive moment matching."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.paths import Schedule
from flowexp.requirements import Parts, Unmet, all_of
from flowexp.timesteps.base import IntervalDistribution

__all__ = ["ParticleTimes"]


class ParticleTimes(IntervalDistribution):
    """``t ~ U(low, high)``, ``r ~ U(low, t)`` and s just below t, shared by a group of particles.

    ``s = max(r, min(t - min_gap, eta^-1(eta(t) - (eta(high) - eta(low)) / 2^k)))`` with the noise
    level ``eta = sigma / alpha``. Every ``particles`` consecutive rows form a group.

    Args:
        particles: Group size M, at least 1.
        low: Smallest time, >= 0.
        high: Largest time, > low; alpha must be positive there.
        k: Steps in eta are its range divided by ``2^k``; > 0.
        min_gap: Smallest ``t - s``, >= 0, unless r is closer.

    Raises:
        ValueError: A number is out of range.

    Source: Zhou et al., IMM, 2025, arXiv 2503.07565, section 5, with the constants of the released
    CIFAR-10 sampler (0.006 to 0.994); min_gap is that of rosinality's trainer, which is not the
    authors'.
    """

    columns = ("t", "r", "s")

    def __init__(
        self,
        *,
        particles: int = 4,
        low: float = 0.006,
        high: float = 0.994,
        k: float = 12.0,
        min_gap: float = 1e-4,
    ) -> None:
        super().__init__()
        if particles < 1:
            raise ValueError(f"particles is {particles}; expected at least 1")
        if not 0.0 <= low < high < math.inf:
            raise ValueError(f"need 0 <= low < high, got low={low}, high={high}")
        if not k > 0.0:
            raise ValueError(f"k is {k}; expected a positive number")
        if not min_gap >= 0.0:
            raise ValueError(f"min_gap is {min_gap}; expected a number >= 0")
        self.particles = int(particles)
        self.low = float(low)
        self.high = float(high)
        self.k = float(k)
        self.min_gap = float(min_gap)

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Times on the path at which the noise level is finite."""
        yield from all_of(super().needs(parts), self._finite(parts))

    def _finite(self, parts: Parts) -> Iterator[Unmet]:
        schedule = parts.path.schedule
        if self.high >= 1.0 and schedule.ends_in_source:
            name, path = type(self).__name__, type(schedule).__name__
            problem = f"{name} steps in sigma/alpha, which is infinite at t=1 of the {path} path."
            yield Unmet(".high", problem, "Set timestep.high=0.994.")

    def quantile(self, u: Tensor, *, schedule: Schedule) -> Tensor:
        n, m = len(u), self.particles
        u = u[::m].repeat_interleave(m, dim=0)[:n]
        t = self.low + (self.high - self.low) * u[:, 0]
        r = self.low + (t - self.low) * u[:, 1]
        low, high = schedule.nsr(torch.tensor([self.low, self.high], device=u.device))
        level = schedule.nsr(t) - (high - low) / 2.0**self.k
        below = schedule.time_at_nsr(level.clamp(min=0.0))
        s = torch.maximum(r, torch.minimum(t - self.min_gap, below))
        return torch.stack([t, r, s], dim=1)
