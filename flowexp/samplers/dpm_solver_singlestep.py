"""DPM-Solver++ and DPM-Solver of second order without memory."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from flowexp.samplers.base import TimeGrid
from flowexp.samplers.field import Field, Interval, Node
from flowexp.samplers.fixed_step import FixedStepSampler
from flowexp.samplers.multistep import Level, Weights, first_order
from flowexp.samplers.noise_grids import half_log_snr
from flowexp.samplers.phi_functions import phi
from flowexp.seeding import Noise

__all__ = ["SinglestepDPMSolver"]


class SinglestepDPMSolver(FixedStepSampler):
    """DPM-Solver++(2S), or DPM-Solver-2 with noise prediction: two evaluations per step.

    With ``h = lambda' - lambda`` and a node at ``lambda + r h``, reached by a first-order step,
    ``D`` at the start and ``D_r`` at the node, ``c_k = h phi_k(-h)``::

        x' = (sigma'/sigma) x + alpha' [c_1 D + A (D_r - D)/r],   A = c_1/2 or (Taylor) c_2

    For noise, ``x' = (alpha'/alpha) x - sigma' [...]`` with ``c_k = h phi_k(h)``. A step that
    begins or ends where lambda is infinite is DDIM's and costs one evaluation.

    Args:
        steps, time_grid, double: See :class:`FixedStepSampler`.
        r: Place of the inner node, in (0, 1].
        predicts_data: Work with predicted data (DPM-Solver++), else noise (DPM-Solver).
        midpoint: The form as published, else the Taylor form.

    Raises:
        ValueError: r is not in (0, 1].

    Source: Lu et al., DPM-Solver++, 2022, arXiv 2211.01095, algorithm 1; DPM-Solver, 2022, arXiv
    2206.00927, algorithm 4.
    """

    def default_grid(self) -> TimeGrid:
        return half_log_snr()

    def __init__(
        self,
        *,
        steps: int,
        time_grid: TimeGrid | None = None,
        r: float = 0.5,
        predicts_data: bool = True,
        midpoint: bool = True,
        double: bool = True,
    ) -> None:
        super().__init__(steps=steps, time_grid=time_grid, double=double)
        if not 0.0 < r <= 1.0:
            raise ValueError(f"r is {r}; expected a number in (0, 1]")
        self.r = float(r)
        self.predicts_data = predicts_data
        self.midpoint = midpoint

    def walk(
        self, field: Field, z: Tensor, intervals: Sequence[Interval], noise: Noise | None
    ) -> Iterator[Tensor]:
        moving = [interval for interval in intervals if not interval.is_empty]
        starts = _levels(field, [i.start for i in moving])
        ends = _levels(field, [i.end for i in moving])
        inner = iter(self._inner(field, starts, ends))
        pairs = iter(zip(starts, ends, strict=True))
        for interval in intervals:
            if interval.is_empty:
                yield z
                continue
            start, end = next(pairs)
            prediction = field.predict(z, interval.start)
            if start.is_finite and end.is_finite:
                output = prediction.data if self.predicts_data else prediction.noise
                node, level = next(inner)
                at_node = first_order(start, level, predicts_data=self.predicts_data)
                further = field.predict(at_node(z, [output]), node)
                newest = further.data if self.predicts_data else further.noise
                z = self._weights(start, end)(z, [output, newest])
            else:
                data = start.sigma > 0.0 and (self.predicts_data or start.alpha == 0.0)
                output = prediction.data if data else prediction.noise
                z = first_order(start, end, predicts_data=data)(z, [output])
            yield z

    def _inner(
        self, field: Field, starts: Sequence[Level], ends: Sequence[Level]
    ) -> list[tuple[Node, Level]]:
        """The inner nodes of the steps between finite levels."""
        lams = [
            a.lam + self.r * (b.lam - a.lam)
            for a, b in zip(starts, ends, strict=True)
            if a.is_finite and b.is_finite
        ]
        times = field.schedule.time_at_nsr(torch.tensor(lams, dtype=torch.float64).neg().exp())
        nodes = field.nodes(times)
        return list(zip(nodes, _levels(field, nodes), strict=True))

    def _weights(self, start: Level, end: Level) -> Weights:
        base = first_order(start, end, predicts_data=self.predicts_data)
        h = end.lam - start.lam
        z, factor = (-h, end.alpha) if self.predicts_data else (h, -end.sigma)
        c = 0.5 * phi(1, z) if self.midpoint else phi(2, z)
        weight = factor * h * c / self.r
        return Weights(base.state, (base.outputs[0] - weight, weight))


def _levels(field: Field, nodes: Sequence[Node]) -> list[Level]:
    pairs = zip(nodes, field.levels(nodes), strict=True)
    return [Level.of(node.time, alpha, sigma) for node, (alpha, sigma) in pairs]
