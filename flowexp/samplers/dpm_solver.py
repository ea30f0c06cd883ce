"""DPM-Solver++ and DPM-Solver: multistep, and of second order without memory."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Unpack

import torch
from torch import Tensor

from flowexp.samplers.base import TimeGrid
from flowexp.samplers.field import Field, Intervals, Node, States
from flowexp.samplers.fixed_step import FixedStepSampler, SteppingInTime
from flowexp.samplers.multistep import (
    Level,
    LinearMultistepSampler,
    Multistepping,
    Weights,
    first_order,
    levels_of,
    phi,
)
from flowexp.samplers.noise_grids import half_log_snr
from flowexp.seeding import Noise

__all__ = ["DPMSolver", "SinglestepDPMSolver"]


class DPMSolver(LinearMultistepSampler):
    """DPM-Solver++ (data prediction) and DPM-Solver (noise prediction), multistep, orders 1 to 3.

    With ``h = lambda' - lambda``, ``r_0 = h_0/h``, ``r_1 = h_1/h`` the earlier gaps, ``D_i`` the
    remembered data and ``c_k = h phi_k(-h)``::

        x' = (sigma'/sigma) x + alpha' [c_1 D_0 + A D1 + B D2]
        order 2:  D1 = (D_0 - D_1)/r_0,                    A = c_1/2 (midpoint) or c_2 (Taylor)
        order 3:  d = (D_0 - D_1)/r_0 - (D_1 - D_2)/r_1,   A = c_2,  B = c_3 (coded) or 2 c_3
                  D1 = (D_0 - D_1)/r_0 + r_0/(r_0+r_1) d,  D2 = d/(r_0+r_1)

    For noise, ``x' = (alpha'/alpha) x - sigma' [...]`` with ``c_k = h phi_k(h)``. Order 1 is DDIM.

    As the authors code it, order 3 gives D2 half of its Taylor weight, so that its local error is
    of the order of 2M's; the published tables use that form, which is the default.

    Args:
        predicts_data: Remember predicted data (DPM-Solver++), else noise (DPM-Solver).
        midpoint: Second-order steps in the midpoint form as published, else in Taylor form.
        halved_curvature: Third-order steps as the authors code them, else in Taylor form.

    Source: Lu et al., DPM-Solver++, 2022, arXiv 2211.01095, algorithm 2 and appendix B; the order-3
    form and ``solver_type`` from their code, where ``taylor`` concerns second-order steps only.
    """

    def __init__(
        self,
        *,
        order: int = 2,
        predicts_data: bool = True,
        midpoint: bool = True,
        halved_curvature: bool = True,
        **stepping: Unpack[Multistepping],
    ) -> None:
        super().__init__(order=order, predicts_data=predicts_data, **stepping)
        self.midpoint = midpoint
        self.halved_curvature = halved_curvature

    def updates(self, nodes: Sequence[Level], end: Level, *, last: bool) -> tuple[Weights, None]:
        start = nodes[0]
        base = first_order(start, end, predicts_data=self.predicts_data)
        h = end.lam - start.lam
        z, factor = (-h, end.alpha) if self.predicts_data else (h, -end.sigma)
        c = [factor * h * phi(k, z) for k in (1, 2, 3)]
        lams = [node.lam for node in nodes]
        if len(nodes) == 1:
            extra = [0.0]
        elif len(nodes) == 2:
            slope = h / (lams[0] - lams[1])
            weight = slope * (0.5 * c[0] if self.midpoint else c[1])
            extra = [weight, -weight]
        else:
            extra = self._third(lams, h, c)
        return Weights(base.state, (base.outputs[0] + extra[0], *extra[1:])), None

    def _third(self, lams: Sequence[float], h: float, c: Sequence[float]) -> list[float]:
        """Weights of the three newest outputs in ``A D1 + B D2``."""
        h0, h1 = lams[0] - lams[1], lams[1] - lams[2]
        curvature = c[2] if self.halved_curvature else 2.0 * c[2]
        # A D1 + B D2 = A (D_0 - D_1)/r_0 + mixed d
        mixed = (c[1] * h0 + curvature * h) / (h0 + h1)
        newer, older = (c[1] + mixed) * h / h0, -mixed * h / h1
        return [newer, older - newer, -older]


class SinglestepDPMSolver(FixedStepSampler):
    """DPM-Solver++(2S), or DPM-Solver-2 with noise prediction: two evaluations per step.

    With ``h = lambda' - lambda`` and a node at ``lambda + r h``, reached by a first-order step,
    ``D`` at the start and ``D_r`` at the node, ``c_k = h phi_k(-h)``::

        x' = (sigma'/sigma) x + alpha' [c_1 D + A (D_r - D)/r],   A = c_1/2 or (Taylor) c_2

    For noise, ``x' = (alpha'/alpha) x - sigma' [...]`` with ``c_k = h phi_k(h)``. A step that
    begins or ends where lambda is infinite is DDIM's and costs one evaluation.

    Args:
        r: Place of the inner node, in (0, 1].
        predicts_data: Work with predicted data (DPM-Solver++), else noise (DPM-Solver).
        midpoint: The form as published, else the Taylor form.

    Source: Lu et al., DPM-Solver++, 2022, arXiv 2211.01095, algorithm 1; DPM-Solver, 2022, arXiv
    2206.00927, algorithm 4.
    """

    passes_over_empty = True

    def __init__(
        self,
        *,
        r: float = 0.5,
        predicts_data: bool = True,
        midpoint: bool = True,
        **stepping: Unpack[SteppingInTime],
    ) -> None:
        super().__init__(variable=None, **stepping)
        if not 0.0 < r <= 1.0:
            raise ValueError(f"r is {r}; expected a number in (0, 1]")
        self.r = float(r)
        self.predicts_data = predicts_data
        self.midpoint = midpoint

    def default_grid(self) -> TimeGrid:
        return half_log_snr()

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        levels = levels_of(field, [intervals[0].start, *(i.end for i in intervals)])
        inner = self._inner(field, levels)
        for interval, (start, end) in zip(intervals, pairwise(levels), strict=True):
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

    def _inner(self, field: Field, levels: Sequence[Level]) -> Iterator[tuple[Node, Level]]:
        """The inner nodes of the steps between finite levels."""
        finite = [(a.lam, b.lam) for a, b in pairwise(levels) if a.is_finite and b.is_finite]
        lams = torch.tensor([a + self.r * (b - a) for a, b in finite], dtype=torch.float64)
        nodes = field.nodes(field.schedule.time_at_nsr(lams.neg().exp()))
        return zip(nodes, levels_of(field, nodes), strict=True)

    def _weights(self, start: Level, end: Level) -> Weights:
        base = first_order(start, end, predicts_data=self.predicts_data)
        h = end.lam - start.lam
        z, factor = (-h, end.alpha) if self.predicts_data else (h, -end.sigma)
        c = 0.5 * phi(1, z) if self.midpoint else phi(2, z)
        weight = factor * h * c / self.r
        return Weights(base.state, (base.outputs[0] - weight, weight))
