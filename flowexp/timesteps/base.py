"""What a timestep distribution answers: the distribution of t in training."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flowexp.paths import Schedule
from flowexp.seeding import open_uniform

__all__ = ["TimestepDistribution", "check_compatible"]


class TimestepDistribution(ABC):
    """A distribution of training times, given by its quantile function.

    Attributes:
        in_nsr: Whether the law is one of the noise-to-signal ratio ``sigma / alpha`` (then it suits
            every path) instead of the time t.
        includes_end: Whether the upper end of the support is itself drawn.
    """

    in_nsr: bool = False
    includes_end: bool = False

    @property
    @abstractmethod
    def support(self) -> tuple[float, float]:
        """The open interval (low, high) that the law lives on: times, or noise-to-signal ratios."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """The value below which the probability is ``u`` in (0, 1); float64."""

    @abstractmethod
    def cdf(self, value: Tensor) -> Tensor:
        """Probability of a value at or below ``value``; float64."""

    @abstractmethod
    def pdf(self, value: Tensor) -> Tensor:
        """Probability density at ``value``; float64, 0 outside the support."""

    def uniforms(self, n: int, *, rng: torch.Generator) -> Tensor:
        """The ``n`` uniform numbers behind a batch of draws: independent, unless stratified."""
        return open_uniform((n,), rng=rng)

    def sample(self, n: int, *, schedule: Schedule, rng: torch.Generator) -> Tensor:
        """``n`` times on the path, (n,), float64, on the generator's device."""
        value = self.quantile(self.uniforms(n, rng=rng))
        return schedule.time_at_nsr(value) if self.in_nsr else value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items())})"


def check_compatible(law: TimestepDistribution, schedule: Schedule) -> None:
    """Refuse a law of t that does not live on the path's time.

    A law of the noise-to-signal ratio suits every path. A law of t must not reach beyond the path's
    last time, and a law of unit time says nothing about a path whose time is the noise level.

    Raises:
        ValueError: One sentence that names both.
    """
    if law.in_nsr:
        return
    low, high = law.support
    remedy = "a law of the noise-to-signal ratio such as lognormal suits every path"
    if high <= 1.0 < schedule.t_max:
        raise ValueError(
            f"the timestep distribution {law!r} draws t in ({low:g}, {high:g}), but on the path "
            f"{schedule!r} time runs from {schedule.t_min:g} to {schedule.t_max:g}; {remedy}"
        )
    if low < 0.0 or high > max(schedule.t_max, 1.0):
        raise ValueError(
            f"the timestep distribution {law!r} draws t up to {high:g}, but the path {schedule!r} "
            f"ends at t = {schedule.t_max:g}; {remedy}"
        )
