"""The preconditioning of EDM's VE column, on any path."""

import math

import torch
from torch import Tensor, nn

from flowexp.parameterizations.base import BetweenLevels, Conditions, NetworkInputs, PredictsNoise
from flowexp.paths import Coefficients, Schedule

__all__ = ["VEPreconditioning"]


class VEPreconditioning(BetweenLevels, PredictsNoise):
    """``D(x; sigma) = x + sigma F(x, ln(sigma / 2))``: score-SDE on VE.

    The network gives sigma times the score, minus the noise. On another path it is the same
    denoiser at ``x_t/alpha`` and ``sigma/alpha``, so ``c_in = 1/alpha``: the standard deviation of
    the network's input grows with sigma/alpha.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1, column VE; Song et al., 2021, arXiv
    2011.13456 (NCSN++).
    """

    def __init__(self, *, sigma_min: float = 0.02, sigma_max: float = 100.0) -> None:
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max)

    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        log_nsr = torch.log(c.sigma) - torch.log(c.alpha)
        return NetworkInputs(1.0 / c.alpha, log_nsr - math.log(2.0))

    def evaluate(
        self, network: nn.Module, x: Tensor, c_noise: Tensor, conditions: Conditions
    ) -> Tensor:
        """The noise: minus the network's output, which is sigma times the score."""
        return -super().evaluate(network, x, c_noise, conditions)
