"""The linear path of rectified flow and conditional flow matching."""

import torch
from torch import Tensor

from flowexp.paths.base import Coefficients, Schedule

__all__ = ["Linear"]


class Linear(Schedule):
    """``alpha = 1 - t``, ``sigma = sigma_min + (1 - sigma_min) t``: straight lines.

    The velocity is ``(1 - sigma_min) e - x``.

    Args:
        sigma_min: Noise left at the data end, in [0, 1). 0 is rectified flow and CondOT; Lipman et
            al. use a small positive number (their "OT path").

    Source: Liu et al., Flow Straight and Fast, 2022, arXiv 2209.03003, eq. 1; Lipman et al., Flow
    Matching for Generative Modeling, 2022, arXiv 2210.02747, eq. 20 (with t reversed).
    """

    ends_in_source = True

    def __init__(self, *, sigma_min: float = 0.0, t_min: float = 0.0, t_max: float = 1.0) -> None:
        super().__init__(t_min, t_max)
        if not 0.0 <= sigma_min < 1.0:
            raise ValueError(f"sigma_min is {sigma_min}; expected a number in [0, 1)")
        self.sigma_min = float(sigma_min)

    def coefficients(self, t: Tensor) -> Coefficients:
        """The coefficients; the Wronskian is 1 for every ``sigma_min``."""
        one = torch.ones_like(t)
        span = 1.0 - self.sigma_min
        return Coefficients(1.0 - t, self.sigma_min + span * t, -one, span * one, one)

    def time_at_nsr(self, nsr: Tensor) -> Tensor:
        """``t = (nsr - sigma_min) / (nsr + 1 - sigma_min)``, 1 at infinity, not below 0."""
        span = 1.0 - self.sigma_min
        finite = ((nsr - self.sigma_min) / (nsr + span)).clamp(min=0.0)
        return torch.where(torch.isinf(nsr), torch.ones_like(nsr), finite)
