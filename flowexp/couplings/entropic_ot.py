"""Entropic optimal transport within the batch (SB-CFM)."""

import torch
from torch import Tensor

from flowexp.couplings.transport import PlanCoupling, pairs_from_plan, sinkhorn_plan, squared_cost
from flowexp.seeding import open_uniform

__all__ = ["EntropicOT"]


class EntropicOT(PlanCoupling):
    """Pairs drawn from the entropic plan of ``|e_i - x_j|^2`` over the batch.

    ``reg = 2 s^2`` is the Schroedinger bridge of a Brownian motion with diffusion s; reg -> 0 is
    :class:`MinibatchOT` with replacement, reg -> inf the independent coupling. The cost grows with
    the number of pixels, and reg must grow with it.

    Args:
        reg: Regularization in the cost's unit, > 0.
        iterations: Largest number of Sinkhorn iterations, >= 1.
        tolerance: Error of the marginal at which they stop.

    Source: Tong et al., Improving and generalizing flow-based generative models, 2023, arXiv
    2302.00482 (SB-CFM). The authors' class uses the exact plan by default; this one always uses
    the entropic plan that their paper states.
    """

    def __init__(
        self,
        *,
        reg: float = 0.5,
        iterations: int = 1000,
        tolerance: float = 1e-9,
        per_class: bool = False,
    ) -> None:
        super().__init__(per_class=per_class)
        if not reg > 0.0:
            raise ValueError(f"reg is {reg}; expected a positive number")
        if iterations < 1:
            raise ValueError(f"iterations is {iterations}; expected at least 1")
        self.reg = float(reg)
        self.iterations = iterations
        self.tolerance = float(tolerance)

    def match(self, e: Tensor, x: Tensor, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        plan = sinkhorn_plan(
            squared_cost(e, x), reg=self.reg, iterations=self.iterations, tolerance=self.tolerance
        )
        return pairs_from_plan(plan, open_uniform((e.shape[0],), rng=rng))
