"""Time grids that are shaped in the noise-to-signal ratio n = sigma/alpha, for any path."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.paths import edm_sigmas
from flowexp.samplers.base import TimeGrid

__all__ = ["half_log_snr", "EDMGrid", "IDDPMGrid", "LogSNR", "VPGrid", "VPLevels"]


@dataclass(frozen=True)
class VPLevels:
    """``n(t) = sqrt(exp(beta_d t^2/2 + beta_min t) - 1)``: sigma/alpha of a VP path by its time.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1, column VP.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1

    @classmethod
    def between(cls, *, sigma_min: float, sigma_max: float, epsilon_s: float) -> Self:
        """Those with ``n(1) = sigma_max`` and ``n(epsilon_s) = sigma_min``, as in EDM's code.

        A ``ValueError`` if n does not increase from ``epsilon_s`` to 1.
        """
        top, bottom = math.log1p(sigma_max**2), math.log1p(sigma_min**2)
        beta_d = 2.0 * (bottom / epsilon_s - top) / (epsilon_s - 1.0)
        beta_min = top - 0.5 * beta_d
        if not 0.0 < beta_d + beta_min < math.inf:
            raise ValueError(
                f"no VP path has sigma/alpha {sigma_min:g} at t = {epsilon_s:g} and {sigma_max:g} "
                "at t = 1; choose sigma_min, sigma_max and epsilon_s as in (0.002, 80, 0.001)"
            )
        return cls(beta_d, beta_min)

    def nsr(self, t: Tensor) -> Tensor:
        """``n(t)``, of the shape of t."""
        return torch.sqrt(torch.expm1(0.5 * self.beta_d * t**2 + self.beta_min * t))

    def time(self, nsr: Tensor) -> Tensor:
        """``t(n)``: inverse of :meth:`nsr`, in the form that does not cancel for small n."""
        total = torch.log1p(nsr**2)
        root = torch.sqrt(self.beta_min**2 + 2.0 * self.beta_d * total)
        if self.beta_min > 0.0:
            return 2.0 * total / (self.beta_min + root)
        return (root - self.beta_min) / self.beta_d


class _NoiseGrid(TimeGrid):
    """Levels from ``sigma_max`` to ``sigma_min``, then 0; both clamped to the model's range.

    Args:
        sigma_min: Smallest noise-to-signal ratio before 0, > 0.
        sigma_max: Start of sampling, > sigma_min.
        to_zero: End at 0; else at sigma_min (the last step is then a full one).
    """

    above_zero = "set sampler.time_grid.to_zero=false"

    def __init__(self, *, sigma_min: float, sigma_max: float, to_zero: bool) -> None:
        if not 0.0 < sigma_min < sigma_max:
            raise ValueError(
                f"need 0 < sigma_min < sigma_max, got sigma_min={sigma_min}, sigma_max={sigma_max}"
            )
        self.sigma_min = float(sigma_min)
        self.sigma_max = float(sigma_max)
        self.to_zero = to_zero

    @property
    def ends_at_zero(self) -> bool:
        return self.to_zero

    @abstractmethod
    def levels(self, count: int, *, sigma_min: float, sigma_max: float) -> Tensor:
        """``count`` noise-to-signal ratios, decreasing, float64; one is ``sigma_max`` alone."""

    def times(self, model: Model, steps: int) -> Tensor:
        """``steps + 1`` times: ``steps`` levels and 0, or ``steps + 1`` levels."""
        schedule = model.path.schedule
        low, high = model.time_range
        lowest, highest = schedule.nsr(torch.tensor([low, high], dtype=torch.float64)).tolist()
        sigma_min, sigma_max = max(self.sigma_min, lowest), min(self.sigma_max, highest)
        if not sigma_min < sigma_max:
            raise ValueError(
                f"{self!r} leaves no noise levels of the model, whose sigma/alpha is in "
                f"[{lowest}, {highest}]"
            )
        count = steps if self.to_zero else steps + 1
        nsr = self.levels(count, sigma_min=sigma_min, sigma_max=sigma_max)
        # The inverse may miss an end of the range by its rounding.
        times = schedule.time_at_nsr(nsr).clamp(min=low, max=high)
        return torch.cat([times, times.new_zeros(1)]) if self.to_zero else times


class EDMGrid(_NoiseGrid):
    """EDM's grid: ``n^(1/rho)`` falls linearly from ``sigma_max`` to ``sigma_min``, then 0.

    Args:
        rho: Exponent, > 0; 7 as published, 3 roughly equalises the truncation error.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, eq. 5.
    """

    def __init__(
        self,
        *,
        rho: float = 7.0,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        to_zero: bool = True,
    ) -> None:
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max, to_zero=to_zero)
        if not rho > 0.0:
            raise ValueError(f"rho is {rho}; expected a positive number")
        self.rho = float(rho)

    def levels(self, count: int, *, sigma_min: float, sigma_max: float) -> Tensor:
        return edm_sigmas(count, sigma_min=sigma_min, sigma_max=sigma_max, rho=self.rho)[:-1]


class LogSNR(_NoiseGrid):
    """Equal steps in log-SNR, that is, geometric noise levels (EDM's "ve" discretisation).

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1, column VE (0.02 to 100); Lu et al.,
    DPM-Solver, 2022, arXiv 2206.00927, section 4.1.
    """

    def __init__(
        self, *, sigma_min: float = 0.02, sigma_max: float = 100.0, to_zero: bool = True
    ) -> None:
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max, to_zero=to_zero)

    def levels(self, count: int, *, sigma_min: float, sigma_max: float) -> Tensor:
        return sigma_max * (sigma_min / sigma_max) ** _ramp(count)


def half_log_snr() -> LogSNR:
    """Equal steps in log-SNR over the model's range, not to 0: DPM-Solver's logSNR."""
    return LogSNR(sigma_min=0.002, sigma_max=200.0, to_zero=False)


class VPGrid(_NoiseGrid):
    """The levels of a VP path in equal steps of a power of its time (EDM's "vp" discretisation).

    :class:`VPLevels` at t from 1 to ``epsilon_s``, with ``t^(1/rho)`` in equal steps, where beta_d
    and beta_min are fitted so that the ends are ``sigma_max`` and ``sigma_min``.

    Args:
        sigma_min, sigma_max: None = n(epsilon_s) and n(1) of the standard betas, 19.9 and 0.1.
        epsilon_s: The VP path's time at ``sigma_min``, in (0, 1).
        rho: Exponent, > 0; 1 = uniform in t, 2 = DEIS as published by diff-solvers.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1, column VP, and their code, which
    fits the betas to the range; rho from zju-pi/diff-sampler (``time_uniform``), after Zhang &
    Chen, DEIS, 2022, arXiv 2204.13902.
    """

    later_options: ClassVar[Mapping[str, object]] = {"epsilon_s": 1e-3, "rho": 1.0}

    def __init__(
        self,
        *,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        to_zero: bool = True,
        epsilon_s: float = 1e-3,
        rho: float = 1.0,
    ) -> None:
        if not 0.0 < epsilon_s < 1.0:
            raise ValueError(f"epsilon_s is {epsilon_s}; expected a number in (0, 1)")
        if not rho > 0.0:
            raise ValueError(f"rho is {rho}; expected a positive number")
        self.epsilon_s = float(epsilon_s)
        self.rho = float(rho)
        self.to_zero = to_zero
        ends = torch.tensor([self.epsilon_s, 1.0], dtype=torch.float64)
        lowest, highest = VPLevels().nsr(ends).tolist()
        super().__init__(
            sigma_min=lowest if sigma_min is None else sigma_min,
            sigma_max=highest if sigma_max is None else sigma_max,
            to_zero=to_zero,
        )

    def levels(self, count: int, *, sigma_min: float, sigma_max: float) -> Tensor:
        levels = VPLevels.between(
            sigma_min=sigma_min, sigma_max=sigma_max, epsilon_s=self.epsilon_s
        )
        last = self.epsilon_s ** (1.0 / self.rho)
        return levels.nsr(torch.pow(1.0 + _ramp(count) * (last - 1.0), self.rho))


class IDDPMGrid(_NoiseGrid):
    """A subset of improved DDPM's M noise levels, equally spaced in their number.

    With ``abar_j = sin^2(pi j / (2 M (C_2 + 1)))``: ``u_M = 0``,
    ``u_{j-1} = sqrt((u_j^2 + 1) / max(abar_{j-1}/abar_j, C_1) - 1)``; the levels within the range
    are indexed by ``round((len - 1) i / (n - 1))``, half to even.

    Args:
        C_1: Smallest ratio of neighbouring abar, > 0.
        C_2: Offset of the angles, >= 0.
        M: Number of levels, >= 1.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1, column iDDPM + DDIM. Their code
    takes the angles in float32, which shifts the levels by up to 5e-4; here they are float64.
    """

    later_options: ClassVar[Mapping[str, object]] = {"C_1": 0.001, "C_2": 0.008, "M": 1000}

    def __init__(
        self,
        *,
        sigma_min: float = 0.002,
        sigma_max: float = 81.0,
        to_zero: bool = True,
        C_1: float = 0.001,
        C_2: float = 0.008,
        M: int = 1000,
    ) -> None:
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max, to_zero=to_zero)
        if not (C_1 > 0.0 and C_2 >= 0.0 and M >= 1):
            raise ValueError(f"need C_1 > 0, C_2 >= 0 and M >= 1, got C_1={C_1}, C_2={C_2}, M={M}")
        self.C_1, self.C_2, self.M = float(C_1), float(C_2), M

    def levels(self, count: int, *, sigma_min: float, sigma_max: float) -> Tensor:
        table = [u for u in self._table() if sigma_min <= u <= sigma_max]
        if len(table) < count:
            raise ValueError(
                f"{self!r}: the table has {len(table)} levels in the range, fewer than the {count} "
                f"requested"
            )
        index = torch.round((len(table) - 1) * _ramp(count)).to(torch.int64)
        return torch.tensor(table, dtype=torch.float64)[index]

    def _table(self) -> list[float]:
        """``u_0 .. u_{M-1}``, decreasing."""
        angle = 0.5 * math.pi / (self.M * (self.C_2 + 1.0))
        u, table = 0.0, []
        for j in range(self.M, 0, -1):
            ratio = (math.sin(angle * (j - 1)) / math.sin(angle * j)) ** 2
            u = math.sqrt((u**2 + 1.0) / max(ratio, self.C_1) - 1.0)
            table.append(u)
        return table[::-1]


def _ramp(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float64) / max(count - 1, 1)
