"""DPM-Solver-v3."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.samplers.base import TimeGrid
from flowexp.samplers.field import Field, Interval
from flowexp.samplers.model_statistics import ModelStatistics, Statistics
from flowexp.samplers.multistep import MultistepSampler
from flowexp.samplers.pixel_rule import CorrectorRange, PixelRule
from flowexp.seeding import Noise

__all__ = ["DPMSolverV3"]


class DPMSolverV3(MultistepSampler):
    """DPM-Solver-v3: a multistep predictor-corrector in a model's own best parameterization.

    The model's statistics choose it per noise level and pixel, see
    :class:`flowexp.samplers.ModelStatistics`; the formula is in
    :class:`flowexp.samplers.pixel_rule.PixelRule`.

    The times of the grid move to the nearest points of the statistics' grid, also for the network.
    Where the grid ends at t = 0, the last step is the model's data prediction.

    Args:
        steps: Number of steps, >= 1; one evaluation each.
        time_grid: The times between the steps, within the range of the statistics.
        statistics: Source of l, s and b.
        order: Highest order, 1 to 3.
        p_pseudo: Predictor of pseudo-order (for about 5 steps).
        corrector: Correct the state at every point but the last, where the order allows.
        c_pseudo: Corrector of pseudo-order, one higher than the predictor's.
        corrector_low: Points at or below this time are not corrected.
        corrector_high: Points above it are not. The paper's "half" is high = 0.5; its Stable
            Diffusion code does low = 0.5 instead.
        lower_order_final: Let the order fall to 1 towards the end.
        double: Keep the state in float64 between steps, else float32.

    Raises:
        ValueError: steps < 1, order is not in 1 .. 3, or corrector_low >= corrector_high.

    Source: Zheng et al., DPM-Solver-v3, 2023, arXiv 2310.13268, algorithm 1 and appendix D; their
    code keeps node times in float32, here all is float64.
    """

    # Its steps lie on the statistics' grid, but an inversion's start does not.
    invertible = False

    def __init__(
        self,
        *,
        steps: int,
        time_grid: TimeGrid | None = None,
        statistics: Statistics,
        order: int = 3,
        p_pseudo: bool = False,
        corrector: bool = True,
        c_pseudo: bool = False,
        corrector_low: float = 0.0,
        corrector_high: float = math.inf,
        lower_order_final: bool = True,
        double: bool = True,
    ) -> None:
        super().__init__(
            steps=steps,
            time_grid=time_grid,
            order=order,
            lower_order_final=lower_order_final,
            double=double,
        )
        if not corrector_low < corrector_high:
            raise ValueError(
                f"corrector_low is {corrector_low}; expected a time below corrector_high="
                f"{corrector_high}"
            )
        self.statistics = statistics
        self.p_pseudo = p_pseudo
        limits = CorrectorRange(float(corrector_low), float(corrector_high), c_pseudo)
        self.corrector = limits if corrector else None

    def walk(
        self, field: Field, z: Tensor, intervals: Sequence[Interval], noise: Noise | None
    ) -> Iterator[Tensor]:
        shape, known = z.shape[1:], self.statistics_of(field.model).l.shape[1:]
        if known != shape and any(length != 1 for length in known):
            raise ValueError(
                f"the statistics are of samples of shape {tuple(known)}, but these have "
                f"{tuple(shape)}"
            )
        return super().walk(field, z, intervals, noise)

    def times(self, model: Model) -> Tensor:
        """The time grid, moved to the points of the statistics' grid; a last 0 stays.

        Raises:
            ValueError: There are no statistics of this model and range, or two times fall on one
                point of their grid.
        """
        times, lam = self._wanted(model)
        statistics = self.statistics.of(model, float(lam[0]), float(lam[-1]))
        indices = statistics.indices(lam)
        if len(set(indices.tolist())) < len(indices):
            raise ValueError(
                f"{self.steps} steps on {self.time_grid!r} fall twice on one of the "
                f"{statistics.count + 1} points of the statistics' grid ({indices.tolist()}); use "
                f"fewer steps, another time grid, or statistics with a larger N"
            )
        low, high = model.time_range
        snapped = model.path.schedule.time_at_nsr(torch.exp(-statistics.lam[indices]))
        return torch.cat([snapped.clamp(min=low, max=high), times[len(indices) :]])

    def statistics_of(self, model: Model) -> ModelStatistics:
        """The statistics that :meth:`sample` uses for a model.

        Raises:
            ValueError: There are none of this model and range.
        """
        _, lam = self._wanted(model)
        return self.statistics.of(model, float(lam[0]), float(lam[-1]))

    def _wanted(self, model: Model) -> tuple[Tensor, Tensor]:
        """The grid's times, and lambda at those where noise is left."""
        times = super().times(model)
        lam = torch.log(model.path.schedule.nsr(times)).neg()
        if not bool(torch.isfinite(lam[:-1]).all()):
            raise ValueError(
                f"{self.time_grid!r} starts at t={float(times[0])}, where no data is left and "
                f"lambda is infinite; start it below (time_grid=log_snr does)"
            )
        return times, lam if bool(torch.isfinite(lam[-1])) else lam[:-1]

    def depends_on(self, field: Field) -> object:
        return self.statistics_of(field.model), field.device

    def rule(self, field: Field) -> PixelRule:
        return PixelRule(
            self.statistics_of(field.model),
            pseudo=self.p_pseudo,
            corrector=self.corrector,
            device=field.device,
            dtype=self.dtype,
        )
