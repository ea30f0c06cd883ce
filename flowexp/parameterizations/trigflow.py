"""TrigFlow: every path as a quarter circle, for diffusion and consistency models alike.

``x_theta = cos(theta) x + sin(theta) sd e`` with ``theta = atan2(sigma, alpha sd)`` in [0, pi/2]
has the standard deviation sd of the data at every theta. The formulas use only cos and sin, which
stay finite at pi/2, where sigma/alpha does not.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from flowexp.broadcast import expand_as
from flowexp.parameterizations.base import BetweenLevels, Conditions, NetworkInputs
from flowexp.paths import Coefficients, Conversion, Schedule
from flowexp.paths.conversions import Affine, FromPreconditioned
from flowexp.requirements import Extended, Parts, Unmet, all_of, on_deviation

__all__ = ["QuarterCircle", "TrigFlow", "time_at_angle"]


@dataclass(frozen=True)
class QuarterCircle:
    """Times of a path as points of TrigFlow's quarter circle.

    With ``q = sqrt((alpha sd)^2 + sigma^2)``: ``cos = alpha sd / q``, ``sin = sigma / q``,
    ``x_theta = (sd / q) x_t``. For F with velocity ``dx_theta/dtheta = sd F`` the data are
    ``cos x_theta - sin sd F``.

    Attributes:
        c: The schedule at the times.
        sigma_data: sd, the standard deviation of the data.
    """

    c: Coefficients
    sigma_data: float

    @cached_property
    def q(self) -> Tensor:
        """Standard deviation of x_t for data of standard deviation sd."""
        return torch.sqrt((self.c.alpha * self.sigma_data) ** 2 + self.c.sigma**2)

    @property
    def cos(self) -> Tensor:
        """Of theta; float64, like the next two."""
        return self.c.alpha * self.sigma_data / self.q

    @property
    def sin(self) -> Tensor:
        """Of theta."""
        return self.c.sigma / self.q

    @property
    def angle(self) -> Tensor:
        """Theta, in [0, pi/2]."""
        return torch.atan2(self.c.sigma, self.c.alpha * self.sigma_data)

    def state(self, x_t: Tensor) -> Tensor:
        """``x_theta`` of the path's state."""
        return expand_as(self.sigma_data / self.q, x_t) * x_t

    def velocity(self, x_t: Tensor, velocity: Tensor) -> Tensor:
        """``dx_theta/dtheta = (q v - q' x_t) / W`` of the path's velocity v."""
        c = self.c
        d_q = (c.alpha * c.d_alpha * self.sigma_data**2 + c.sigma * c.d_sigma) / self.q
        return Affine(-d_q / c.wronskian, self.q / c.wronskian)(x_t, velocity)

    def output(self, x_t: Tensor, data: Tensor) -> Tensor:
        """The F that predicts the ``data``: ``(cos x_theta - data) / (sd sin)``; sin > 0."""
        scale = self.sigma_data * self.sin
        of_state = self.cos * (self.sigma_data / self.q) / scale
        return Affine(of_state, -1.0 / scale)(x_t, data)


def time_at_angle(schedule: Schedule, theta: Tensor, *, sigma_data: float) -> Tensor:
    """The time of a path at TrigFlow's ``theta`` in [0, pi/2], float64: sigma/alpha = sd tan."""
    cos, sin = torch.cos(theta), torch.sin(theta)
    return schedule.time_at_nsr(sigma_data * sin / torch.where(theta < math.pi / 2.0, cos, 0.0))


class TrigFlow(BetweenLevels):
    """``D = cos(theta) x_theta - sin(theta) sd F(x_theta / sd, theta)``: F is a velocity in theta.

    ``theta = atan2(sigma, alpha sd)`` is also the network's noise input; see
    :class:`QuarterCircle`. In a :class:`FlowMap` with the DDIM jump the data prediction is a
    consistency function, with ``f(x, 0) = x`` by construction, and jumps are rotations.

    :class:`EDMPreconditioning` differs in the sign, ``F = -F_edm``, and in the noise input
    ``ln(sigma/alpha)/4``. For networks with EDM's weights use it in place of this class.

    Args:
        sigma_data: sd, the standard deviation of the data (0.5 for images in [-1, 1]), > 0.
        sigma_min: Smallest noise level at which samplers evaluate the velocity, > 0.
        sigma_max: Largest one; sampling starts there, or at the end of the path. EDM's 80 is theta
            = 1.5645; inf is the end of every path.

    Source: Lu & Song, sCM, 2024, arXiv 2410.11081, section 3.
    """

    def __init__(
        self,
        *,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: Extended = 80.0,
    ) -> None:
        if not sigma_data > 0.0:
            raise ValueError(f"sigma_data is {sigma_data}; expected a positive number")
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max)
        self.sigma_data = float(sigma_data)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Besides what every parameterization needs, data whose deviation is ``sigma_data``."""
        yield from all_of(super().needs(parts), on_deviation(parts, self.sigma_data))

    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        circle = QuarterCircle(c, self.sigma_data)
        return NetworkInputs(1.0 / circle.q, circle.angle)

    def conversion(self, c: Coefficients) -> Conversion:
        # EDM's formulas, with F = -F_edm; see evaluate.
        return FromPreconditioned(c, sigma_data=self.sigma_data)

    def evaluate(
        self, network: nn.Module, x: Tensor, c_noise: Tensor, conditions: Conditions
    ) -> Tensor:
        """``-F``, what an EDM network would give."""
        return -super().evaluate(network, x, c_noise, conditions)
