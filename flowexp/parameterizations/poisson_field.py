"""Networks whose output is the normalised Poisson field of the space with one extra coordinate.

At a state x of noise level s = sigma/alpha the field of data with mean D points along
``v = (D - x, -s)``. Its normalised form is ``sqrt(N) v / (|v| + gamma)``, and the noise is the
ratio of its two parts: ``e = (x - D)/s = v_x / v_s``.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.parameterizations.base import BetweenLevels, NetworkInputs, bounded_input_scale
from flowexp.paths import Coefficients, Conversion, Schedule
from flowexp.paths.conversions import FromNoise

__all__ = ["FieldConversion", "PoissonFieldPrediction", "normalized_field"]

# The authors' code adds it to the field along z before it divides by it.
_GUARD = 1e-5


def normalized_field(displacement: Tensor, level: Tensor, *, gamma: float) -> tuple[Tensor, Tensor]:
    """``sqrt(N) v / (|v| + gamma)`` with ``v = (displacement, -level)``: its parts along x and s.

    Args:
        displacement: ``D - x``, (B, ...), N numbers each.
        level: ``sigma/alpha``, (B,), > 0.
        gamma: Softens the normalisation near the data, >= 0.

    Source: Xu et al., PFGM, 2022, arXiv 2209.11178, eq. 5 (the factor sqrt(N) is their code's).
    """
    length = torch.linalg.vector_norm(displacement.flatten(1), dim=1)
    factor = math.sqrt(displacement[0].numel()) / (torch.hypot(length, level) + gamma)
    return expand_as(factor, displacement) * displacement, -factor * level


@dataclass(frozen=True)
class FieldConversion(FromNoise):
    """The network gives the normalised field: along x, and the mean of one more channel along s.

    Below the level ``z_exp`` the second part is not the network's but follows from the length of
    the first, ``n = |v_x| / sqrt(N)``, ``a = gamma n / (1 - n)``:
    ``v_s = -sqrt(N) s / (sqrt(a^2 + s^2) + gamma)``. For a network without the extra channel the
    formula is used at all levels.

    Source: Xu et al., PFGM, 2022, arXiv 2209.11178, appendix B.2.3; Newbeeer/Poisson_flow,
    methods.py, whose guard 1e-5 in the denominator is kept.
    """

    gamma: float
    z_exp: float

    @property
    def level(self) -> Tensor:
        """``sigma / alpha``."""
        return self.c.sigma / self.c.alpha

    def field(self, output: Tensor, *, like: Tensor) -> tuple[Tensor, Tensor]:
        """The two parts, (B, ...) and (B,), of an output with ``like``'s channels, or one more."""
        channels = like.shape[1]
        if output.shape[1] == channels:
            return output, self._from_length(output)
        if output.shape[1] != channels + 1:
            raise ValueError(
                f"the network gives {output.shape[1]} channels; a Poisson field of {channels} "
                f"channels needs {channels} or {channels + 1}"
            )
        return output[:, :channels], output[:, channels].reshape(len(output), -1).mean(1)

    def read(self, output: Tensor, *, like: Tensor) -> Tensor:
        """The noise, with the part along the level by the formula below z_exp."""
        along_x, along_level = self.field(output, like=like)
        below = self.level.to(along_level) < self.z_exp
        along_level = torch.where(below, self._from_length(along_x), along_level) + _GUARD
        return along_x / expand_as(along_level, along_x)

    def _from_length(self, along_x: Tensor) -> Tensor:
        root = math.sqrt(along_x[0].numel())
        level = self.level.to(along_x)
        n = torch.linalg.vector_norm(along_x.flatten(1), dim=1) / root
        length = self.gamma * n / (1.0 - n)
        return -root * level / (torch.sqrt(length**2 + level**2) + self.gamma)


class PoissonFieldPrediction(BetweenLevels):
    """F is the normalised field of PFGM; ``dx/dz = v_x / v_z`` is the velocity on the VE path.

    The network needs one output channel more than the data (``network.out_channels``): its mean is
    the field along z. With ``objective=poisson_field`` and D = 1 this is PFGM. The authors feed x
    and z to the network unscaled; here, on the VE path, x is scaled by ``1/sqrt(1 + z^2)`` and
    c_noise is ``ln(z)/4``, which keeps the inputs of order one.

    Args:
        gamma: Softening of the normalisation, > 0; that of the objective.
        z_exp: Level below which the field along z is computed from the field along x, >= 0.

    Source: Xu et al., PFGM, 2022, arXiv 2209.11178; Newbeeer/Poisson_flow, models/ncsnpp.py (mean
    of an extra channel), methods.py (z from 1e-3 to 40 for CIFAR-10, z_exp = 5, gamma = 5).
    """

    needs_signal = True

    def output_channels(self, channels: int) -> tuple[int, ...]:
        """The field along x, and perhaps one channel along z."""
        return channels, channels + 1

    def __init__(
        self,
        *,
        gamma: float = 5.0,
        z_exp: float = 5.0,
        sigma_min: float = 1e-3,
        sigma_max: float = 80.0,
    ) -> None:
        if not (gamma > 0.0 and z_exp >= 0.0):
            raise ValueError(f"need gamma > 0 and z_exp >= 0, got gamma={gamma}, z_exp={z_exp}")
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max)
        self.gamma = float(gamma)
        self.z_exp = float(z_exp)

    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        c_noise = 0.25 * (torch.log(c.sigma) - torch.log(c.alpha))
        return NetworkInputs(bounded_input_scale(c), c_noise)

    def conversion(self, c: Coefficients) -> Conversion:
        return FieldConversion(c, gamma=self.gamma, z_exp=self.z_exp)
