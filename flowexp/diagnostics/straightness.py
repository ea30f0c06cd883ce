"""How far a model's trajectories are from straight lines: by chords, by angles, to first order."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from flowexp.diagnostics.trajectory import Station, TrajectoryMetric

__all__ = ["Straightness", "straightness", "Curvature", "FirstOrderDefect"]


def straightness(trajectory: Tensor, *, per_dimension: bool = True) -> Tensor:
    """``int_0^1 |(x_1 - x_0) - dx_t/dt|^2 dt``, (B,), float64, of trajectories on a uniform grid.

    States (steps + 1, B, ...) go from the source end to the data end; the velocity of a step is the
    difference of its ends divided by its length. ``per_dimension`` divides by N, the number of
    dimensions.

    Raises:
        ValueError: Fewer than two states, or fewer than three axes.

    Source: Liu et al., Flow Straight and Fast, 2022, arXiv 2209.03003 (their S(Z), without 1/N);
    divided by N as in the code of Lee et al., RF++, 2024, arXiv 2405.20320.
    """
    if trajectory.ndim < 3 or len(trajectory) < 2:
        raise ValueError(
            f"trajectory has shape {tuple(trajectory.shape)}; expected (steps + 1, B, ...) with "
            f"at least one step"
        )
    steps = len(trajectory) - 1
    states = trajectory.to(torch.float64)
    velocities = ((1.0 / steps, (states[i] - states[i + 1]) * steps) for i in range(steps))
    _, deviation, _ = _over_time(velocities)
    return deviation / states[0, 0].numel() if per_dimension else deviation


class Straightness(TrajectoryMetric):
    """``S = int_0^1 E|(x_1 - x_0) - v(x_t, t)|^2 dt`` along the model's own trajectories.

    S >= 0, and 0 exactly if every trajectory is a straight line passed at constant speed, so that
    one Euler step is exact. Other paths are mapped to the linear one first (see
    :mod:`flowexp.diagnostics.trajectory`), so that a model has one S, whatever its schedule. Where
    its range does not reach tau = 1 (VE), mean and chord are those of the range that is covered.
    With a Student-t source, E|x_1 - x_0|^2 and S are infinite for D <= 2: the mean then depends on
    the number of samples.

    Beside S: ``chord_arc_ratio``, the mean of ``int |v| dt / |x_1 - x_0|`` >= 1, scale free; and
    ``transport_cost``, ``E|x_1 - x_0|^2``, divided by N if S is. For the marginal flow of pairs
    (x, e), ``E|e - x|^2 - E|x_1 - x_0|^2 = S + V``, V being the least possible loss on the pairs.

    Args:
        per_dimension: Whether to divide by N, the number of dimensions; part of the title.

    Source: Liu et al., Flow Straight and Fast, 2022, arXiv 2209.03003 (their S(Z), without 1/N);
    Lee et al., 2023, arXiv 2301.12003, call the same integral curvature.
    """

    name = "straightness"

    def __init__(self, *, steps: int = 100, per_dimension: bool = True) -> None:
        super().__init__(steps=steps)
        self.per_dimension = per_dimension
        self.quantity = "straightness S/N" if per_dimension else "straightness S"

    def along(self, stations: Iterator[Station], e: Tensor) -> dict[str, Tensor]:
        mean, deviation, speed = _over_time((s.share, s.velocity) for s in stations)
        dims = e[0].numel() if self.per_dimension else 1
        cost = _squared(mean)
        return {
            "value": deviation / dims,
            "chord_arc_ratio": speed / cost.sqrt(),
            "transport_cost": cost / dims,
        }


def _over_time(velocities: Iterable[tuple[float, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean v (B, ...), mean |v - mean|^2 (B,) and mean |v| (B,) by shares of time that sum to 1.

    The mean velocity of Euler's method is the chord, so that the deviation is S. It is updated as
    Welford does: ``int |v|^2 dt - |x_1 - x_0|^2`` would cancel on nearly straight flows.
    """
    passed = 0.0
    mean, deviation, speed = torch.zeros(()), torch.zeros(()), torch.zeros(())
    for share, velocity in velocities:
        passed += share
        change = velocity - mean
        mean = mean + change * (share / passed)
        deviation = deviation + share * (change * (velocity - mean)).flatten(1).sum(1)
        speed = speed + share * _squared(velocity).sqrt()
    return mean, deviation, speed


def _squared(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1)


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


class FirstOrderDefect(TrajectoryMetric):
    """``E_t |e_theta(x_t, t) - e|^2`` along the model's trajectories, e being what they start from.

    An ODE is of first order if one DDIM step is exact between any two times, which is the case if
    and only if the predicted noise is constant along each trajectory: then the defect is 0. Unlike
    straightness it does not require constant speed in t, and it is 0 for a first-order ODE on every
    path. t is uniform in the linear path's time tau = sigma/(alpha + sigma).

    Args:
        per_dimension: Whether to divide by N, the number of dimensions; part of the title.

    Source: Wang et al., Rectified Diffusion, 2024, arXiv 2410.07303, for first-order ODEs; the
    defect as a number is flowexp's own.
    """

    name = "first_order"

    def __init__(self, *, steps: int = 100, per_dimension: bool = True) -> None:
        super().__init__(steps=steps)
        self.per_dimension = per_dimension
        self.quantity = "first-order defect" + (" per dimension" if per_dimension else "")

    def along(self, stations: Iterator[Station], e: Tensor) -> dict[str, Tensor]:
        defect = e.new_zeros(len(e))
        for station in stations:
            defect += station.share * (station.noise - e).flatten(1).square().sum(1)
        return {"value": defect / e[0].numel() if self.per_dimension else defect}
