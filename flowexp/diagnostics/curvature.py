"""Curvature of a flow's trajectories as curves in space."""

from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.diagnostics.trajectory import Station, TrajectoryMetric

__all__ = ["Curvature"]


class Curvature(TrajectoryMetric):
    """Total curvature ``int kappa ds`` of a trajectory: the angle its direction turns by, radians.

    Of the simulated polygon it is the sum of the angles between consecutive velocities. It is 0
    exactly if the trajectory is a straight line that is passed without turning back, at whatever
    speed; turning back counts pi. It does not depend on the scale of the data. (The "curvature" of
    Lee et al., arXiv 2301.12003, is another quantity, ``int E|(x_1 - x_0) - v|^2 dt``, which is
    :class:`Straightness`.) Trajectories are mapped to the linear path first, as for straightness.

    Beside it: ``velocity_variation``, the mean of ``int |dv/dt| dt / |x_1 - x_0|``, which is 0 only
    if the speed is constant too.

    Source: Milnor, On the Total Curvature of Knots, 1950 (total curvature of polygons).
    """

    name = "curvature"
    quantity = "total curvature in radians"

    def along(self, stations: Iterator[Station], e: Tensor) -> dict[str, Tensor]:
        turned, variation = e.new_zeros(len(e)), e.new_zeros(len(e))
        chord = torch.zeros_like(e)
        before: Tensor | None = None
        for station in stations:
            velocity = station.velocity
            chord += station.share * velocity
            if before is not None:
                turned += _angle(before, velocity)
                variation += _norm(velocity - before)
            before = velocity
        return {"value": turned, "velocity_variation": variation / _norm(chord)}


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle between vectors, (B,), in [0, pi]; 0 where one of them is 0.

    ``2 atan2(|u - w|, |u + w|)`` of the unit vectors: exact for small angles, where the arc cosine
    is not.
    """
    length_a, length_b = _norm(a), _norm(b)
    still = (length_a == 0.0) | (length_b == 0.0)
    u = a.flatten(1) / length_a[:, None]
    w = b.flatten(1) / length_b[:, None]
    return torch.where(still, 0.0, 2.0 * torch.atan2(_norm(u - w), _norm(u + w)))


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norm
