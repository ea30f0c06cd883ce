"""First and second moments of pairs, streamed."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Moments"]

_NEGLIGIBLE = 1e-24


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of (f, d) over samples, per component, with what least squares of d on f needs.

    They hold ``sum f, d, f f, f d`` in the form that does not cancel: means and centred sums.

    Attributes:
        count: Number of samples.
        f: Mean of f.
        d: Mean of d.
        ff: ``sum (f - mean f)^2``.
        fd: ``sum (f - mean f)(d - mean d)``.
        size: ``sum`` of the squares of the terms whose difference is f: the scale of its rounding.
    """

    count: int
    f: Tensor
    d: Tensor
    ff: Tensor
    fd: Tensor
    size: Tensor

    @classmethod
    def of(cls, f: Tensor, d: Tensor, *, size: Tensor) -> "Moments":
        """The moments of one batch, (B, ...); ``size`` is (B, ...) too."""
        mean_f, mean_d = f.mean(0), d.mean(0)
        centred = f - mean_f
        return cls(
            len(f),
            mean_f,
            mean_d,
            (centred**2).sum(0),
            (centred * (d - mean_d)).sum(0),
            (size**2).sum(0),
        )

    def merged(self, other: "Moments") -> "Moments":
        """The moments of both together.

        Source: Chan, Golub & LeVeque, Updating formulae and a pairwise algorithm, 1979.
        """
        count = self.count + other.count
        share = other.count / count
        gap_f, gap_d = other.f - self.f, other.d - self.d
        return Moments(
            count,
            self.f + share * gap_f,
            self.d + share * gap_d,
            self.ff + other.ff + self.count * share * gap_f**2,
            self.fd + other.fd + self.count * share * gap_f * gap_d,
            self.size + other.size,
        )

    def line(self) -> tuple[Tensor, Tensor]:
        """``(s, b)`` with least ``sum (d - s f - b)^2``; s = 0 where f does not vary.

        f is constant over x for a single Gaussian; what varies then is rounding.
        """
        constant = self.ff <= _NEGLIGIBLE * self.size
        safe = torch.where(constant, torch.ones_like(self.ff), self.ff)
        s = torch.where(constant, torch.zeros_like(self.ff), self.fd / safe)
        return s, self.d - s * self.f
