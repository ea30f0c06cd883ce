"""EDM's preconditioning on any path."""

import torch
from torch import Tensor

from flowexp.parameterizations.base import BetweenLevels, NetworkInputs
from flowexp.paths import Coefficients, Conversion, Schedule
from flowexp.paths.conversions import FromPreconditioned

__all__ = ["EDMPreconditioning"]


class EDMPreconditioning(BetweenLevels):
    """``D(x; sigma) = c_skip x + c_out F(c_in x, c_noise)``, carried over to any path.

    On the VE path: ``c_skip = sd^2/(sigma^2+sd^2)``, ``c_out = sigma sd/sqrt(sigma^2+sd^2)``,
    ``c_in = 1/sqrt(sigma^2+sd^2)``, ``c_noise = ln(sigma)/4``. On another path it is the same
    denoiser at ``x_t/alpha`` and ``sigma/alpha``: ``c_in = 1/sqrt(alpha^2 sd^2 + sigma^2)``,
    ``c_noise = ln(sigma/alpha)/4``; a network trained on one path can be sampled on any other.

    Args:
        sigma_data: Standard deviation of the data (0.5 for images in [-1, 1]), > 0.
        sigma_min: Smallest noise level at which samplers evaluate the velocity, > 0.
        sigma_max: Largest one; sampling starts there on paths that end in pure noise, where
            ``ln(sigma/alpha)`` is infinite. Training is not restricted to this range.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, table 1, column "Ours".
    """

    needs_signal = True

    def __init__(
        self, *, sigma_data: float = 0.5, sigma_min: float = 0.002, sigma_max: float = 80.0
    ) -> None:
        if not sigma_data > 0.0:
            raise ValueError(f"sigma_data is {sigma_data}; expected a positive number")
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max)
        self.sigma_data = float(sigma_data)

    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        c_in = torch.rsqrt((c.alpha * self.sigma_data) ** 2 + c.sigma**2)
        return NetworkInputs(c_in, 0.25 * (torch.log(c.sigma) - torch.log(c.alpha)))

    def conversion(self, c: Coefficients) -> Conversion:
        return FromPreconditioned(c, sigma_data=self.sigma_data)
