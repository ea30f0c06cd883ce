"""First-order defect: whether one step from anywhere lands on the end of the trajectory."""

from collections.abc import Iterator

from torch import Tensor

from flowexp.diagnostics.trajectory import Station, TrajectoryMetric

__all__ = ["FirstOrderDefect"]


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
