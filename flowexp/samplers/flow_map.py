"""Sampling by jumps of a flow map along a time grid."""

from collections.abc import Iterator
from typing import Literal, Unpack

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.requirements import ModelFacts, Parts, Unmet, on_gaussian_noise
from flowexp.samplers.field import Field, Interval, Intervals, States
from flowexp.samplers.fixed_step import FixedStepSampler, SteppingInTime
from flowexp.seeding import Noise

__all__ = ["FlowMapSampler"]


class FlowMapSampler(FixedStepSampler):
    """``x <- X_{t -> t'}(x)`` between the times of the grid, one evaluation each.

    With ``noise="restart"`` every jump goes to the data, ``x_0 = X_{t -> 0}(x)``, and all but the
    last are followed by fresh noise e', ``alpha(t') x_0 + sigma(t') e'``: multistep consistency
    sampling.

    Jumps cannot be inverted, since a flow map is trained for r <= t only. Inversion follows the
    velocity u(x, t, t) with an ODE sampler.

    Args:
        noise: ``restart``, or None for jumps without noise.

    Source: Boffi et al., 2025, arXiv 2505.18825; Song et al., Consistency Models, 2023, arXiv
    2303.01469, algorithm 1 (restart).
    """

    jumps = True
    invertible = False

    def __init__(
        self, *, noise: Literal["restart"] | None = None, **stepping: Unpack[SteppingInTime]
    ) -> None:
        super().__init__(**stepping)
        if noise not in ("restart", None):
            raise ValueError(f"noise is {noise!r}; expected restart or null")
        if self.analytic_first_step:
            raise ValueError("analytic_first_step is true, but a jump has no analytic form")
        self.noise = noise
        self.needs_gaussian = noise is not None and self.steps > 1

    def noise_needs(self, parts: Parts) -> Iterator[Unmet]:
        if self.needs_gaussian:
            remedy = "Set sampler.noise=null"
            yield from on_gaussian_noise(parts, what="restarts add", remedy=remedy, key=".noise")

    def fits(self, model: ModelFacts) -> Iterator[Unmet]:
        """A flow map; for several jumps without noise, one that ends at any r."""
        own = type(self).__name__
        if not model.is_flow_map:
            problem = f"{own} jumps with a flow map, but {type(model).__name__} has no second time."
            yield Unmet(".", problem, "Use an ODE sampler such as sampler=heun.")
        elif model.maps_to_data_only and self.noise is None and self.steps > 1:
            problem = f"{own} jumps between times, but a consistency model only jumps to the data."
            yield Unmet(".noise", problem, "Set sampler.noise=restart, or sampler.steps=1.")

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        """The states after the jumps; with restarts, after the noise."""
        for interval in intervals:
            if self.noise is None:
                z = self._jump(field, z, interval.start.t, interval.end.t)
            else:
                z = self._restart(field, z, interval, noise)
            yield z

    def _jump(self, field: Field, z: Tensor, t: Tensor, r: Tensor) -> Tensor:
        return field.model.flow_map(z, t, r, **field.conditions)

    def _restart(self, field: Field, z: Tensor, interval: Interval, noise: Noise | None) -> Tensor:
        """The data, with fresh noise unless the interval is the last."""
        end = interval.end.t
        data = self._jump(field, z, interval.start.t, torch.zeros_like(end))
        if interval.index == interval.count - 1:
            return data
        assert noise is not None
        c = field.schedule.coefficients(end)
        return expand_as(c.alpha, z) * data + expand_as(c.sigma, z) * noise(interval.index, z)

    def describe(self) -> str:
        usual = self.time_grid.identity() == self.default_grid().identity()
        grid = "" if usual else f", {self.time_grid.identity()}"
        return f"{super().describe()}{grid}{', restarts' if self.noise else ''}"
