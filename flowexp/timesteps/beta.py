"""Distributions that favour an end of the unit interval, or both: Beta and U-shaped."""

import math

import torch
from torch import Tensor

from flowexp.paths.base import as_float64
from flowexp.timesteps.base import TimestepDistribution

__all__ = ["Beta", "UShaped"]


class Beta(TimestepDistribution):
    """``t ~ Beta(a, b)``, a and b > 0: density ``t^(a-1) (1-t)^(b-1) / B(a, b)``.

    a = b = 1 is uniform, a > b favours the source end, a = b < 1 favours both ends. The incomplete
    Beta function comes from scipy, in float64 on the CPU.
    """

    def __init__(self, *, a: float = 1.0, b: float = 1.0) -> None:
        if not (a > 0.0 and b > 0.0):
            raise ValueError(f"need a > 0 and b > 0, got a={a}, b={b}")
        self.a = float(a)
        self.b = float(b)

    def quantile(self, u: Tensor) -> Tensor:
        from scipy.special import betaincinv

        u = u.to(torch.float64)
        return torch.as_tensor(betaincinv(self.a, self.b, u.cpu().numpy())).to(u.device)

    def cdf(self, value: Tensor) -> Tensor:
        from scipy.special import betainc

        t = value.to(torch.float64).clamp(0.0, 1.0)
        return torch.as_tensor(betainc(self.a, self.b, t.cpu().numpy())).to(t.device)

    def pdf(self, value: Tensor) -> Tensor:
        t = value.to(torch.float64)
        a, b = torch.tensor([self.a, self.b], dtype=torch.float64, device=t.device)
        log_norm = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
        inside = (t > 0.0) & (t < 1.0)
        safe = torch.where(inside, t, 0.5)
        log_density = (a - 1.0) * torch.log(safe) + (b - 1.0) * torch.log1p(-safe) - log_norm
        return torch.where(inside, torch.exp(log_density), 0.0)


_LARGEST = 100.0


class UShaped(TimestepDistribution):
    """``t = m + (1 - 2m) u``, u of density ``(a/2) cosh(a(u - 1/2)) / sinh(a/2)`` on [0, 1].

    Both ends of the path are drawn more often than its middle. With a = 4: density 2.07 at the
    ends, 0.55 in the middle, standard deviation 0.34. In closed form
    ``F(u) = 1/2 + sinh(a(u - 1/2)) / (2 sinh(a/2))`` and
    ``u(q) = 1/2 + asinh((2q - 1) sinh(a/2)) / a``, computed here without the cancellation that
    these have near the ends.

    Args:
        a: Steepness, in (0, 100]; a -> 0 is uniform.
        margin: m, distance of the draws from 0 and 1, in [0, 1/2).

    Source: Lee et al., RF++, 2024, arXiv 2405.20320, and its authors' t_dist.py, which is followed:
    ``e^{a u}`` or its mirror image, with equal probability; a = 4 in all released runs. The paper
    writes ``p(u)`` proportional to ``e^{a u} + e^{-a u}`` on [0, 1], which increases and has no
    second arm. The authors draw mirrored times in pairs within a batch; here draws are independent.
    """

    def __init__(self, *, a: float = 4.0, margin: float = 1e-5) -> None:
        if not 0.0 < a <= _LARGEST:
            raise ValueError(f"a is {a}; expected a number in (0, {_LARGEST:g}]")
        if not 0.0 <= margin < 0.5:
            raise ValueError(f"margin is {margin}; expected a number in [0, 1/2)")
        self.a = float(a)
        self.margin = float(margin)

    @property
    def support(self) -> tuple[float, float]:
        return self.margin, 1.0 - self.margin

    def quantile(self, u: Tensor) -> Tensor:
        """The root of ``E^2 + (1 + e^a - K) E = K``, ``K = 2u (e^a - 1)``, then ln(1 + E)/a."""
        u = as_float64(u)
        k = 2.0 * torch.minimum(u, 1.0 - u) * math.expm1(self.a)
        b = 1.0 + math.exp(self.a) - k
        lower = torch.log1p(2.0 * k / (b + torch.sqrt(b**2 + 4.0 * k))) / self.a
        width = 1.0 - 2.0 * self.margin
        return torch.where(
            u < 0.5, self.margin + width * lower, (1.0 - self.margin) - width * lower
        )

    def cdf(self, value: Tensor) -> Tensor:
        """``cosh(a(1 - u)/2) sinh(a u/2) / sinh(a/2)`` below 1/2, its mirror image above."""
        value = as_float64(value).clamp(*self.support)
        tail = torch.minimum(value - self.margin, (1.0 - self.margin) - value)
        tail = self.a * tail / (1.0 - 2.0 * self.margin)
        half = 0.5 * self.a
        lower = torch.cosh(half - 0.5 * tail) * torch.sinh(0.5 * tail) / math.sinh(half)
        return torch.where(value < 0.5, lower, 1.0 - lower)

    def pdf(self, value: Tensor) -> Tensor:
        value = as_float64(value)
        width = 1.0 - 2.0 * self.margin
        density = torch.cosh(self.a * (value - 0.5) / width) / (width * math.sinh(0.5 * self.a))
        inside = (value >= self.support[0]) & (value <= self.support[1])
        return torch.where(inside, 0.5 * self.a * density, 0.0)
