"""Straightness of a flow: deviation of its velocity from the chord of the trajectory."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from flowexp.diagnostics.trajectory import Station, TrajectoryMetric

__all__ = ["Straightness", "straightness"]


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
