"""Networks whose output is itself a prediction: velocity, noise, score or data."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from flowexp.networks.foreign import call_network
from flowexp.parameterizations.base import (
    Conditions,
    NetworkInputs,
    Parameterization,
    PredictsNoise,
    bounded_input_scale,
)
from flowexp.paths import Coefficients, Conversion, Schedule
from flowexp.paths.conversions import FromData, FromScore, FromVelocity
from flowexp.requirements import Parts, Unmet, all_of, on_gaussian_noise

__all__ = [
    "DataPrediction",
    "NoisePrediction",
    "ScorePrediction",
    "VelocityPrediction",
    "VelocityIncrement",
    "ReversedVelocityPrediction",
]


class _Direct(Parameterization):
    """F is a prediction; c_noise is ``time_scale * unit_time(t)``."""

    def __init__(self, *, time_scale: float = 1.0) -> None:
        if not (time_scale > 0 and math.isfinite(time_scale)):
            raise ValueError(f"time_scale is {time_scale}; expected a positive number")
        self.time_scale = float(time_scale)

    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        return NetworkInputs(bounded_input_scale(c), self.time_scale * schedule.unit_time(t))


class VelocityPrediction(_Direct):
    """F is the velocity ``v = alpha' x + sigma' e``; defined on the whole of every path.

    Args:
        time_scale: Factor of the unit time in c_noise, > 0. SiT and torchcfm use t itself (1);
            score-SDE and rectified flow's code 999 t, DDPM the step index. A larger factor makes
            the velocity less smooth in time, and an adaptive solver takes more steps.

    Source: Lipman et al., 2022, arXiv 2210.02747; Liu et al., 2022, arXiv 2209.03003.
    """

    def conversion(self, c: Coefficients) -> Conversion:
        return FromVelocity(c)


class _BelowSource(_Direct):
    """Singular where alpha = 0, so sampling starts at ``alpha = min_alpha``.

    Args:
        time_scale: See :class:`VelocityPrediction`.
        min_alpha: Smallest alpha relative to ``sqrt(alpha^2 + sigma^2)`` at which samplers evaluate
            the velocity, in (0, 1); SiT keeps 1e-3 away from the end with these heads.
    """

    needs_signal = True

    def __init__(self, *, time_scale: float = 1.0, min_alpha: float = 1e-3) -> None:
        super().__init__(time_scale=time_scale)
        if not 0.0 < min_alpha < 1.0:
            raise ValueError(f"min_alpha is {min_alpha}; expected a number in (0, 1)")
        self.min_alpha = float(min_alpha)

    def time_range(self, schedule: Schedule) -> tuple[float, float]:
        highest = math.sqrt(1.0 - self.min_alpha**2) / self.min_alpha
        return schedule.t_min, min(schedule.t_max, _time_at(schedule, highest))


class NoisePrediction(_BelowSource, PredictsNoise):
    """F is the noise e. Singular where alpha = 0, so sampling starts at ``alpha = min_alpha``.

    Args:
        time_scale: See :class:`VelocityPrediction`.
        min_alpha: Smallest alpha relative to ``sqrt(alpha^2 + sigma^2)`` at which samplers evaluate
            the velocity, in (0, 1); SiT keeps 1e-3 away from the end with this head.

    Source: Ho et al., DDPM, 2020, arXiv 2006.11239, eq. 14; Ma et al., SiT, 2024, arXiv 2401.08740.
    """


class ScorePrediction(_BelowSource):
    """F is the score ``grad log p_t(x_t) = -e / sigma``, of a path with a Gaussian source.

    The data end is not singular, but F grows there as 1/sigma. ``objective=noise`` is the loss
    ``|sigma F + e|^2``. Where alpha = 0 the formulas are singular, as for the noise.

    Args:
        time_scale: See :class:`VelocityPrediction`.
        min_alpha: See :class:`NoisePrediction`.

    Source: Song et al., Score-Based Generative Modeling through SDEs, 2021, arXiv 2011.13456; Ma et
    al., SiT, 2024, arXiv 2401.08740 (prediction "score").
    """

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A Gaussian source, of whose noise the score is a multiple."""
        remedy = "Take parameterization=velocity"
        name = type(self).__name__
        score = on_gaussian_noise(parts, what=f"{name} assumes", remedy=remedy)
        yield from all_of(super().needs(parts), score)

    def conversion(self, c: Coefficients) -> Conversion:
        return FromScore(c)


class DataPrediction(_Direct):
    """F is the data x (a denoiser). Singular where sigma = 0, so sampling ends at ``min_sigma``.

    Args:
        time_scale: See :class:`VelocityPrediction`.
        min_sigma: Smallest noise level at which samplers evaluate the velocity, > 0.

    Source: Salimans & Ho, Progressive Distillation, 2022, arXiv 2202.00512, section 4 (prediction
    of x).
    """

    def __init__(self, *, time_scale: float = 1.0, min_sigma: float = 1e-3) -> None:
        super().__init__(time_scale=time_scale)
        if not min_sigma > 0.0:
            raise ValueError(f"min_sigma is {min_sigma}; expected a positive number")
        self.min_sigma = float(min_sigma)

    def conversion(self, c: Coefficients) -> Conversion:
        return FromData(c)

    def time_range(self, schedule: Schedule) -> tuple[float, float]:
        return max(schedule.t_min, _time_at(schedule, self.min_sigma)), schedule.t_max


def _time_at(schedule: Schedule, nsr: float) -> float:
    return float(schedule.time_at_nsr(torch.tensor(nsr, dtype=torch.float64)))


class VelocityIncrement(VelocityPrediction):
    """``v(x_t, t) = c + F([x_t, c], t)``: F is the change of an earlier velocity c.

    The condition ``velocity`` is c, of the shape of x_t; the network's input has twice the channels
    of the data. A network whose output is zero at initialisation predicts ``v = c``: a velocity
    that does not change along the trajectory.

    Source: Zhao et al., FlowTurbo, 2024, arXiv 2409.18128, section 3.2. The authors' code has the
    opposite time and sign; F here is an increment of flowexp's velocity.
    """

    corrects_velocity = True

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """An objective that gives the network a velocity to correct."""
        yield from all_of(super().needs(parts), self._velocity_from(parts))

    def _velocity_from(self, parts: Parts) -> Iterator[Unmet]:
        if not parts.objective.trains_refiner:
            own, objective = type(self).__name__, type(parts.objective).__name__
            problem = f"{own} corrects a velocity, but {objective} provides none."
            yield Unmet("objective", problem, "Use objective=velocity_refinement.")

    def evaluate(
        self, network: nn.Module, x: Tensor, c_noise: Tensor, conditions: Conditions
    ) -> Tensor:
        """The velocity; ``ValueError`` without an earlier one."""
        rest = dict(conditions)
        velocity = rest.pop("velocity", None)
        if velocity is None:
            raise ValueError(
                "VelocityIncrement needs the condition velocity, but it is missing; it refines "
                "another model (sampler.refiner) and is not a model to sample from"
            )
        earlier = velocity.to(x.dtype)
        return earlier + call_network(network, torch.cat([x, earlier], dim=1), c_noise, rest)


class ReversedVelocityPrediction(VelocityPrediction):
    """``F(x_t, time_scale (1 - t)) = -v``: networks trained with time 0 at noise and 1 at data.

    Published rectified flows keep their weights unchanged this way.

    Args:
        time_scale: Factor of ``1 - unit_time(t)`` in c_noise; 999 in the authors' code.

    Source: Liu et al., 2022, arXiv 2209.03003, and the authors' ``sde_lib.py`` (t_src = 1 - t).
    """

    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        forward = super().inputs(schedule, t, c)
        return NetworkInputs(forward.c_in, self.time_scale - forward.c_noise)

    def evaluate(
        self, network: nn.Module, x: Tensor, c_noise: Tensor, conditions: Conditions
    ) -> Tensor:
        """The velocity: minus the network's output."""
        return -super().evaluate(network, x, c_noise, conditions)
