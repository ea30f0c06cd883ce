"""The Beta distribution of t."""

import torch
from torch import Tensor

from flowexp.timesteps.base import TimestepDistribution

__all__ = ["Beta"]


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
