"""Stratified draws from any timestep distribution."""

import torch
from torch import Tensor

from flowexp.seeding import open_uniform
from flowexp.timesteps.base import TimestepDistribution

__all__ = ["Stratified"]

_LARGEST_UNIFORM = 1.0 - 2.0**-53


class Stratified(TimestepDistribution):
    """One draw from each of n equally probable strata of a distribution, in random order.

    Each time still follows the distribution; the batch covers it evenly, which lowers the variance
    of the loss between batches. With several devices the strata are those of each device's batch.

    Source: Kingma et al., Variational Diffusion Models, 2021, arXiv 2107.00630, low-discrepancy
    sampler (there with one shared offset; here with one uniform number per stratum).
    """

    def __init__(self, law: TimestepDistribution) -> None:
        self.law = law
        self.in_nsr = law.in_nsr
        self.drawn_end = None if law.drawn_end is None else f"law.{law.drawn_end}"

    @property
    def support(self) -> tuple[float, float]:
        return self.law.support

    def quantile(self, u: Tensor) -> Tensor:
        return self.law.quantile(u)

    def cdf(self, value: Tensor) -> Tensor:
        return self.law.cdf(value)

    def pdf(self, value: Tensor) -> Tensor:
        return self.law.pdf(value)

    def uniforms(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``(stratum + u) / n``, strata in random order: no row is tied to a noise level."""
        stratum = torch.randperm(n, generator=rng, device=rng.device)
        u = (stratum + open_uniform((n,), rng=rng)) / n
        return u.clamp(max=_LARGEST_UNIFORM)

    def __repr__(self) -> str:
        return f"Stratified({self.law!r})"
