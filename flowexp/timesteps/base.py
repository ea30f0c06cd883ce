"""The protocol of timestep distributions: how t is drawn in training."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flowexp.paths import Schedule
from flowexp.seeding import open_uniform

__all__ = ["TimestepDistribution", "check_compatible"]


class TimestepDistribution(ABC):
    """A distribution of training times, given by its quantile function.

    Attributes:
        in_nsr: Whether the values are noise levels ``sigma / alpha``, which suits every path,
            instead of times t.
        includes_end: Whether the upper end of the support is itself drawn.
    """

    in_nsr: bool = False
    includes_end: bool = False

    @property
    def support(self) -> tuple[float, float]:
        """The open interval (low, high) of the values; (0, 1) unless overridden."""
        return 0.0, 1.0

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


def check_compatible(distribution: TimestepDistribution, schedule: Schedule) -> None:
    """Refuse a distribution of t that does not match the path's time range.

    A distribution of noise levels suits every path. One of t must not reach beyond the path's last
    time, and one on [0, 1] does not suit a path whose time is the noise level.

    Raises:
        ValueError: The support does not match; names distribution and path.
    """
    if distribution.in_nsr:
        return
    low, high = distribution.support
    remedy = "a distribution of noise levels, such as lognormal, suits every path"
    if high <= 1.0 < schedule.t_max:
        raise ValueError(
            f"the timestep distribution {distribution!r} draws t in ({low:g}, {high:g}), but on "
            f"the path {schedule!r} time runs from {schedule.t_min:g} to {schedule.t_max:g}; "
            f"{remedy}"
        )
    if low < 0.0 or high > max(schedule.t_max, 1.0):
        raise ValueError(
            f"the timestep distribution {distribution!r} draws t up to {high:g}, but the path "
            f"{schedule!r} ends at t = {schedule.t_max:g}; {remedy}"
        )
