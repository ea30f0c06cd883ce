"""Adams-Bashforth methods on grids of any spacing."""

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Unpack

import torch
from torch import Tensor

from flowexp.samplers.field import Field, Intervals, States
from flowexp.samplers.fixed_step import FixedStepSampler, Stepping
from flowexp.seeding import Noise

__all__ = ["AdamsBashforth", "adams_weights"]


def adams_weights(nodes: Sequence[float], end: float) -> list[float]:
    """Weights of the slopes at ``nodes`` in the step from ``nodes[0]`` to ``end``.

    ``w_j = int_{u_0}^{end} prod_{k != j} (u - u_k) / (u_j - u_k) du``: the integral of the
    polynomial through the slopes. On a uniform grid they are the constants 3/2, -1/2 and so on,
    times h. The nodes are all different, the newest first.
    """
    h = end - nodes[0]
    places = [(u - nodes[0]) / h for u in nodes]
    weights = []
    for j, own in enumerate(places):
        # Coefficients, lowest power first.
        polynomial = [1.0]
        for other in places[:j] + places[j + 1 :]:
            shifted = zip([0.0, *polynomial], [*polynomial, 0.0], strict=True)
            polynomial = [(up - other * low) / (own - other) for up, low in shifted]
        weights.append(h * sum(a / (power + 1) for power, a in enumerate(polynomial)))
    return weights


class AdamsBashforth(FixedStepSampler):
    """Linear multistep method with one evaluation per step (none in an empty one), on any grid.

    The first steps use the slopes there are (orders 1, 2, ...), so that the global order is at most
    2; each later step has the requested order. With ``variable=nsr``, or on the VE path, this is
    k-diffusion's LMS sampler.

    Args:
        order: 1 to 4.

    Source: Bashforth & Adams, 1883; variable steps in Hairer, Noersett & Wanner, Solving Ordinary
    Differential Equations I, III.5.
    """

    passes_over_empty = True

    def __init__(self, *, order: int = 4, **stepping: Unpack[Stepping]) -> None:
        super().__init__(**stepping)
        if order not in (1, 2, 3, 4):
            raise ValueError(f"order is {order}; expected 1, 2, 3 or 4")
        self.order = order

    def walk(self, field: Field, z: Tensor, intervals: Intervals, noise: Noise | None) -> States:
        slopes: deque[Tensor] = deque(maxlen=self.order)
        nodes: deque[float] = deque(maxlen=self.order)
        for interval in intervals:
            slopes.appendleft(field.slope(z, interval.start))
            nodes.appendleft(interval.start.u)
            first, *rest = adams_weights(list(nodes), interval.end.u)
            z = torch.add(z, slopes[0], alpha=first)
            for slope, weight in zip(islice(slopes, 1, None), rest, strict=True):
                z.add_(slope, alpha=weight)
            yield z
