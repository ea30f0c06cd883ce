"""Jumps of a flow map along a time grid."""

from collections.abc import Iterator
from typing import Literal, Unpack

from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.requirements import Parts, Unmet, all_of
from flowexp.samplers.field import Field, Intervals, States
from flowexp.samplers.fixed_step import FixedStepSampler, SteppingInTime
from flowexp.seeding import Noise

__all__ = ["FlowMapSampler"]


class FlowMapSampler(FixedStepSampler):
    """``x <- X_{t -> t'}(x)`` between the times of the grid, one evaluation each.

    With ``noise="restart"`` every jump goes to the data, ``x_0 = X_{t -> 0}(x)``, and what is
    carried on is ``alpha(t') x_0 + sigma(t') e'`` with fresh noise e': the multistep sampling of
    consistency models.

    Args:
        noise: ``restart``, or None for jumps without noise.

    Source: Boffi et al., 2025, arXiv 2505.18825; Song et al., Consistency Models, 2023, arXiv
    2303.01469, algorithm 1 (restart).
    """

    invertible = False

    def __init__(
        self, *, noise: Literal["restart"] | None = None, **stepping: Unpack[SteppingInTime]
    ) -> None:
        super().__init__(**stepping)
        if noise not in ("restart", None):
            raise ValueError(f"noise is {noise!r}; expected restart or null")
        self.noise = noise
        self.needs_gaussian = noise is not None and self.steps > 1

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A flow map, and one that ends at other times than 0 for jumps without noise."""
        yield from all_of(super().needs(parts), self._flow_map(parts), self._ends(parts))

    def _flow_map(self, parts: Parts) -> Iterator[Unmet]:
        if not parts.parameterization.is_flow_map:
            name, rule = type(self).__name__, type(parts.parameterization).__name__
            problem = f"{name} jumps with a flow map, but {rule} has no second time."
            yield Unmet(".", problem, "Use an ODE sampler such as sampler=heun.")

    def _ends(self, parts: Parts) -> Iterator[Unmet]:
        if parts.parameterization.maps_to_data_only and self.noise is None and self.steps > 1:
            problem = "the flow map of this model ends at the data only, where a jump cannot go on."
            yield Unmet(".noise", problem, "Set sampler.noise=restart, or sampler.steps=1.")

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        """The states after the jumps; with restarts, after the noise."""
        model, path = field.model, field.model.path
        for interval in intervals:
            t, end = interval.start.t, interval.end.t
            if self.noise is None:
                z = model.flow_map(z, t, end, **field.conditions)
            else:
                z = model.flow_map(z, t, end * 0.0, **field.conditions)
                if not interval.reaches_data:
                    assert noise is not None
                    c = path.schedule.coefficients(end)
                    fresh = noise(interval.index, z)
                    z = expand_as(c.alpha, z) * z + expand_as(c.sigma, z) * fresh
            yield z

    def describe(self) -> str:
        return super().describe() + (", restarts" if self.noise else "")
