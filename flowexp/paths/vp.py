"""Variance-preserving paths: DDPM's linear-beta schedule, and VP with linear alpha."""

import torch
from torch import Tensor

from flowexp.paths.base import Coefficients, Schedule

__all__ = ["VP", "LinearVP"]

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

    def coefficients(self, t: Tensor) -> Coefficients:
        """The coefficients; sigma by ``expm1`` so that it is exact near t = 0."""
        beta = self.beta_min + (self.beta_max - self.beta_min) * t
        total = t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)
        alpha = torch.exp(-0.5 * total)
        sigma = torch.sqrt(-torch.expm1(-total))
        d_sigma = 0.5 * beta * torch.exp(-total) / sigma
        return Coefficients(alpha, sigma, -0.5 * beta * alpha, d_sigma, 0.5 * beta * alpha / sigma)

    def time_at_nsr(self, nsr: Tensor) -> Tensor:
        """Root of ``T(t) = log(1 + nsr^2)``, in the form that does not cancel for small ``nsr``."""
        total = torch.log1p(nsr**2)
        span = self.beta_max - self.beta_min
        root = torch.sqrt(self.beta_min**2 + 2.0 * span * total)
        t = 2.0 * total / (self.beta_min + root)
        return torch.where(torch.isinf(nsr), torch.full_like(nsr, torch.inf), t)


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
