"""EDM's preconditioning with the boundary of consistency models: the identity at sigma_min."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.parameterizations.base import NetworkInputs
from flowexp.parameterizations.preconditioning import EDMPreconditioning
from flowexp.paths import Affine, Coefficients, Conversion, Schedule
from flowexp.paths.conversions import FromPreconditioned

__all__ = ["ConsistencyPreconditioning", "FromShifted"]

_SMALLEST_LEVEL = 1e-44


@dataclass(frozen=True)
class FromShifted(FromPreconditioned):
    """F is EDM's target with the level ``nsr - shift`` in c_skip and in the numerator of c_out.

    With ``tau = sigma - shift alpha``, ``p = alpha^2 sigma_data^2 + tau^2`` and ``q = alpha^2
    sigma_data^2 + sigma^2``: ``D = (alpha sigma_data^2 / p) x_t + (tau sigma_data / sqrt q) F``. At
    the level ``shift``, ``D = x_t/alpha``; noise and velocity are taken to be those of ``D = x_t``
    at sigma = 0.
    """

    shift: float

    @property
    def _tau(self) -> Tensor:
        return self.c.sigma - self.shift * self.c.alpha

    @property
    def _relative(self) -> Tensor:
        """``tau / sigma``; 0 at sigma = 0."""
        sigma = self.c.sigma
        return torch.where(sigma == 0.0, 0.0, self._tau / torch.where(sigma == 0.0, 1.0, sigma))

    @property
    def _shifted_variance(self) -> Tensor:
        return (self.c.alpha * self.sigma_data) ** 2 + self._tau**2

    @property
    def data(self) -> Affine:
        c, p = self.c, self._shifted_variance
        of_output = self._tau * self.sigma_data * torch.rsqrt(self._variance)
        return Affine(c.alpha * self.sigma_data**2 / p, of_output)

    @property
    def noise(self) -> Affine:
        p, share = self._shifted_variance, self._relative
        of_output = -self.c.alpha * share * self.sigma_data * torch.rsqrt(self._variance)
        return Affine(self._tau * share / p, of_output)

    @property
    def velocity(self) -> Affine:
        c, p, share = self.c, self._shifted_variance, self._relative
        drift = c.alpha * c.d_alpha * self.sigma_data**2 + c.d_sigma * self._tau * share
        of_output = -c.wronskian * share * self.sigma_data * torch.rsqrt(self._variance)
        return Affine(drift / p, of_output)


class ConsistencyPreconditioning(EDMPreconditioning):
    """EDM's preconditioning, with the level shifted by sigma_min in training, in sampling or both.

    The shifted scalings ``c_skip = sd^2/((sigma - sigma_min)^2 + sd^2)`` and ``c_out = sd (sigma -
    sigma_min)/sqrt(sigma^2 + sd^2)`` make D the identity at sigma_min, EDM's at 0. On other paths
    sigma is ``sigma/alpha``, as in :class:`EDMPreconditioning`. The network is also defined at
    sigma = 0, where c_noise is that of the level 1e-44.

    Args:
        shift_in_training: Whether the scalings are shifted in training mode: in CM's code yes, in
            ECT's no.
        shift_in_sampling: Whether they are shifted in evaluation mode: yes in both codes. FastGen's
            ``sigma_shift`` is this option, off by default.
        sigma_data: See :class:`EDMPreconditioning`.
        sigma_min: The shift, and the smallest level at which samplers evaluate; 0.002 in CM, 0.003
            in ECT.
        sigma_max: See :class:`EDMPreconditioning`.

    Source: Song et al., Consistency Models, 2023, arXiv 2303.01469, appendix C; Geng et al., ECT,
    2024, arXiv 2406.14548, as in the authors' networks.py (ECMPrecond).
    """

    reads_weights_of = ("flowexp.parameterizations.EDMPreconditioning",)

    def __init__(
        self,
        *,
        shift_in_training: bool = False,
        shift_in_sampling: bool = True,
        sigma_data: float = 0.5,
        sigma_min: float = 0.003,
        sigma_max: float = 80.0,
    ) -> None:
        super().__init__(sigma_data=sigma_data, sigma_min=sigma_min, sigma_max=sigma_max)
        self.shift_in_training = shift_in_training
        self.shift_in_sampling = shift_in_sampling

    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        present = super().inputs(schedule, t, c)
        level = (c.sigma / c.alpha).clamp(min=_SMALLEST_LEVEL)
        return NetworkInputs(present.c_in, 0.25 * torch.log(level))

    def conversion(self, c: Coefficients) -> Conversion:
        return self.conversion_in(c, training=False)

    def conversion_in(self, c: Coefficients, *, training: bool) -> Conversion:
        if self.shift_in_training if training else self.shift_in_sampling:
            return FromShifted(c, sigma_data=self.sigma_data, shift=self.sigma_min)
        return FromPreconditioned(c, sigma_data=self.sigma_data)
