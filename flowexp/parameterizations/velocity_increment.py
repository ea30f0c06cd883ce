"""Networks that correct a given velocity: FlowTurbo's refiner."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from flowexp.networks.foreign import call_network
from flowexp.parameterizations.base import Conditions
from flowexp.parameterizations.direct import VelocityPrediction
from flowexp.requirements import Parts, Unmet, all_of

__all__ = ["VelocityIncrement"]


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
