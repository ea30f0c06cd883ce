"""Variance-preserving paths: DDPM's linear-beta schedule, sub-VP, and VP with linear alpha."""

import torch
from torch import Tensor

from flowexp.paths.base import Coefficients, Schedule

__all__ = ["VP", "SubVP", "LinearVP", "DiscreteVP"]

# Where score-SDE's ODE sampling stops on VP paths (arXiv 2011.13456, appendix C).
_SAMPLING_FLOOR = 1e-3


class VP(Schedule):
    """``alpha = exp(-T/2)``, ``sigma = sqrt(1 - exp(-T))``, T the integrated noise rate.

    ``T = beta_min t + (beta_max - beta_min) t^2/2``.

    Args:
        beta_min: Noise rate at the data end (0.1 as published).
        beta_max: Noise rate at the source end (20 as published).
        t_min: Smallest time, > 0 (1e-5 in training as published; sigma' is infinite at 0).

    Source: Song et al., Score-Based Generative Modeling through SDEs, 2021, arXiv 2011.13456,
    appendix C.
    """

    needs_positive_t_min = True
    grid_floor = _SAMPLING_FLOOR

    def __init__(
        self,
        *,
        beta_min: float = 0.1,
        beta_max: float = 20.0,
        t_min: float = 1e-5,
        t_max: float = 1.0,
    ) -> None:
        super().__init__(t_min, t_max)
        if not 0.0 < beta_min <= beta_max:
            raise ValueError(
                f"need 0 < beta_min <= beta_max, got beta_min={beta_min}, beta_max={beta_max}"
            )
        self.beta_min = float(beta_min)
        self.beta_max = float(beta_max)

    def _rate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The noise rate beta and its integral T from 0 to ``t``."""
        span = self.beta_max - self.beta_min
        return self.beta_min + span * t, t * (self.beta_min + 0.5 * span * t)

    def coefficients(self, t: Tensor) -> Coefficients:
        """The coefficients; sigma by ``expm1`` so that it is exact near t = 0."""
        beta, total = self._rate(t)
        alpha = torch.exp(-0.5 * total)
        sigma = torch.sqrt(-torch.expm1(-total))
        d_sigma = 0.5 * beta * torch.exp(-total) / sigma
        return Coefficients(alpha, sigma, -0.5 * beta * alpha, d_sigma, 0.5 * beta * alpha / sigma)

    def time_at_nsr(self, nsr: Tensor) -> Tensor:
        """The time of ``T = log(1 + nsr^2)``."""
        return self._time_at_total(torch.log1p(nsr**2))

    def _time_at_total(self, total: Tensor) -> Tensor:
        """Root of ``T(t) = total``, in the form that does not cancel for small ``total``."""
        span = self.beta_max - self.beta_min
        root = torch.sqrt(self.beta_min**2 + 2.0 * span * total)
        t = 2.0 * total / (self.beta_min + root)
        return torch.where(torch.isinf(total), torch.full_like(total, torch.inf), t)


class SubVP(VP):
    """``alpha = exp(-T/2)``, ``sigma = 1 - exp(-T) = 1 - alpha^2``: VP's mean with less noise.

    Unlike VP's, sigma' is finite at the data, so ``t_min`` may be 0.

    Source: Song et al., Score-Based Generative Modeling through SDEs, 2021, arXiv 2011.13456,
    eq. 29.
    """

    needs_positive_t_min = False

    def coefficients(self, t: Tensor) -> Coefficients:
        """The coefficients; the Wronskian is ``beta alpha (1 + alpha^2)/2``."""
        beta, total = self._rate(t)
        alpha = torch.exp(-0.5 * total)
        square = torch.exp(-total)
        wronskian = 0.5 * beta * alpha * (1.0 + square)
        return Coefficients(
            alpha, -torch.expm1(-total), -0.5 * beta * alpha, beta * square, wronskian
        )

    def time_at_nsr(self, nsr: Tensor) -> Tensor:
        """The time of ``T = 2 asinh(nsr/2)``: sigma/alpha is ``1/alpha - alpha = 2 sinh(T/2)``."""
        return self._time_at_total(2.0 * torch.asinh(0.5 * nsr))


class LinearVP(Schedule):
    """``alpha = 1 - t``, ``sigma = sqrt(1 - (1 - t)^2) = sqrt(t (2 - t))``; sigma' infinite at 0.

    Source: Lipman et al., Flow Matching Guide and Code, 2024, arXiv 2412.06264 ("linear VP").
    """

    needs_positive_t_min = True
    grid_floor = _SAMPLING_FLOOR
    ends_in_source = True

    def __init__(self, *, t_min: float = 1e-5, t_max: float = 1.0) -> None:
        super().__init__(t_min, t_max)

    def coefficients(self, t: Tensor) -> Coefficients:
        """The coefficients; the Wronskian is ``1 / sigma``."""
        sigma = torch.sqrt(t * (2.0 - t))
        return Coefficients(1.0 - t, sigma, -torch.ones_like(t), (1.0 - t) / sigma, 1.0 / sigma)

    def time_at_nsr(self, nsr: Tensor) -> Tensor:
        """``alpha = 1 / sqrt(1 + nsr^2)``, and ``t = 1 - alpha`` without cancellation."""
        root = torch.sqrt(1.0 + nsr**2)
        finite = nsr**2 / (root * (1.0 + root))
        return torch.where(torch.isinf(nsr), torch.ones_like(nsr), finite)


class DiscreteVP(Schedule):
    """``alpha = sqrt(abar)``, ``sigma = sqrt(1 - abar)``, ``abar_k = prod_{j <= k} (1 - beta_j)``.

    The M rates run from beta_start to beta_end in equal steps of ``beta^(1/p)``. Level k = 0 .. M-1
    is at ``t = (k + 1)/M``, so that t = 0 is the data; between the levels log abar is linear in
    t. Equal steps of t from 1 are the "trailing" levels: t = 1, 3/4, 1/2, 1/4 are k = 999, 749,
    499, 249. The unit time is ``t - 1/M``, so that a parameterization with time_scale = M gives the
    network k itself.

    Args:
        beta_start: Rate at the data end, in (0, 1).
        beta_end: Rate at the source end, in [beta_start, 1).
        p: 1 = "linear", 2 = "scaled_linear" (even in sqrt(beta)), the one of Stable Diffusion.
        time_steps: M, number of levels, >= 2.
        t_min: Smallest time, > 0; None = 1/M, level 0.
        t_max: Largest time; alpha is not 0 there, which sampling neglects as is usual.

    Source: Ho et al., DDPM, 2020, arXiv 2006.11239, eq. 4; Rombach et al., Latent Diffusion, 2022,
    arXiv 2112.10752 (0.00085 to 0.012, scaled_linear). Rectified Diffusion (arXiv 2410.07303)
    fine-tunes on p = 1 networks that were trained on p = 2.
    """

    needs_positive_t_min = True

    def __init__(
        self,
        *,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        p: float = 2.0,
        time_steps: int = 1000,
        t_min: float | None = None,
        t_max: float = 1.0,
    ) -> None:
        if time_steps < 2:
            raise ValueError(f"time_steps is {time_steps}; expected at least 2")
        super().__init__(1.0 / time_steps if t_min is None else t_min, t_max)
        if not 0.0 < beta_start <= beta_end < 1.0:
            raise ValueError(
                f"need 0 < beta_start <= beta_end < 1, got beta_start={beta_start}, "
                f"beta_end={beta_end}"
            )
        if not p > 0.0:
            raise ValueError(f"p is {p}; expected a positive number")
        if not t_max <= 1.0:
            raise ValueError(f"t_max is {t_max}; expected at most 1, the last level")
        self.beta_start = float(beta_start)
        self.beta_end = float(beta_end)
        self.p = float(p)
        self.time_steps = int(time_steps)
        u = torch.linspace(0.0, 1.0, self.time_steps, dtype=torch.float64)
        first, last = self.beta_start ** (1.0 / self.p), self.beta_end ** (1.0 / self.p)
        totals = torch.cumsum(-torch.log1p(-((first + (last - first) * u) ** self.p)), dim=0)
        # -log abar at t = 0, 1/M, .., 1
        self._totals = torch.cat([totals.new_zeros(1), totals])

    @property
    def alphas_cumprod(self) -> Tensor:
        """``abar_k``, (M,), float64."""
        return torch.exp(-self._totals[1:])

    def time_of(self, k: Tensor) -> Tensor:
        """``t = (k + 1)/M``, float64."""
        return (k.to(torch.float64) + 1.0) / self.time_steps

    def unit_time(self, t: Tensor) -> Tensor:
        return super().unit_time(t) - 1.0 / self.time_steps

    def coefficients(self, t: Tensor) -> Coefficients:
        """The coefficients; sigma by ``expm1`` so that it is exact near t = 0."""
        totals = self._totals.to(t.device)
        place = t * self.time_steps
        below = place.floor().clamp(0, self.time_steps - 1)
        index = below.to(torch.int64)
        rise = totals[index + 1] - totals[index]
        total = totals[index] + (place - below) * rise
        alpha = torch.exp(-0.5 * total)
        sigma = torch.sqrt(-torch.expm1(-total))
        rate = 0.5 * self.time_steps * rise
        return Coefficients(
            alpha, sigma, -rate * alpha, rate * torch.exp(-total) / sigma, rate * alpha / sigma
        )

    def time_at_nsr(self, nsr: Tensor) -> Tensor:
        """The place of ``log(1 + nsr^2)`` in the table, beyond it on its last slope."""
        totals = self._totals.to(nsr.device)
        total = torch.log1p(nsr**2)
        index = torch.searchsorted(totals, total.contiguous(), right=True) - 1
        index = index.clamp(0, self.time_steps - 1)
        rise = totals[index + 1] - totals[index]
        return (index + (total - totals[index]) / rise) / self.time_steps

    def identity(self) -> str:
        return (
            f"DiscreteVP(beta_start={self.beta_start}, beta_end={self.beta_end}, p={self.p}, "
            f"time_steps={self.time_steps}, t_min={self.t_min}, t_max={self.t_max})"
        )
