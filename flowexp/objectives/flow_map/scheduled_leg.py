"""A first leg whose relative length follows a schedule over the training."""

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.objectives.flow_map.derivatives import Derivative
from flowexp.objectives.flow_map.leaps import Leap
from flowexp.objectives.flow_map.legs import FiniteLeg, Legs, Tangent, checked_clamp
from flowexp.objectives.flow_map.schedules import ShareSchedule

__all__ = ["ScheduledShare"]


class ScheduledShare(FiniteLeg):
    """``a`` follows a schedule, usually from a = 1 (trajectory flow matching) to a -> 0 (MeanFlow).

    At a = 0 the target is MeanFlow's, as with :class:`Tangent`.

    Args:
        schedule: a as a function of the images seen.
        derivative: How du/dt is computed at a = 0; None = forward mode (JVP).
        min_gap: s is at most ``t - min_gap``, but at least r; in units of t, >= 0. 1e-4 in SoFlow's
            code.
        snap: a below it is set to 0, and above ``1 - snap`` to 1; in [0, 1/2). 0.005 in
            alpha-Flow's code.
        whole_above: a above it is set to 1 too, in (0, 1].
        discrete: Whether a below ``snap`` is set to ``snap`` instead of 0, so that no derivative is
            ever taken.
        clamp: Targets with a > 0 are clamped to [-clamp, clamp], > 0; None = not clamped. 4 in
            alpha-Flow's code, for latents.

    Raises:
        ValueError: A number is out of range.

    Source: Zhang et al., alpha-Flow, 2025, arXiv 2510.20771; Luo et al., SoFlow, 2025, arXiv
    2512.15657; both with the authors' code.
    """

    def __init__(
        self,
        *,
        schedule: ShareSchedule,
        derivative: Derivative | None = None,
        min_gap: float = 0.0,
        snap: float = 0.0,
        whole_above: float = 1.0,
        discrete: bool = False,
        clamp: float | None = None,
    ) -> None:
        if not min_gap >= 0.0:
            raise ValueError(f"min_gap is {min_gap}; expected a number >= 0")
        if not 0.0 <= snap < 0.5:
            raise ValueError(f"snap is {snap}; expected a number in [0, 1/2)")
        if not 0.0 < whole_above <= 1.0:
            raise ValueError(f"whole_above is {whole_above}; expected a number in (0, 1]")
        self.schedule = schedule
        self.tangent = Tangent(derivative=derivative)
        self.derivative = self.tangent.derivative
        self.min_gap = float(min_gap)
        self.snap = float(snap)
        self.whole_above = float(whole_above)
        self.discrete = discrete
        self.clamp = checked_clamp(clamp)

    def share(self, images_seen: int) -> float:
        """a, in [0, 1], for a batch after ``images_seen`` images."""
        share = self.schedule.share(images_seen)
        if share < self.snap:
            return self.snap if self.discrete else 0.0
        return 1.0 if share > min(1.0 - self.snap, self.whole_above) else share

    def is_whole(self, leap: Leap) -> bool:
        return self.share(leap.images_seen) == 1.0

    def end(self, leap: Leap) -> Tensor:
        s = torch.lerp(leap.t, leap.r, self.share(leap.images_seen))
        return torch.minimum(s, torch.maximum(leap.r, leap.t - self.min_gap))

    def target(
        self, model: Model, leap: Leap, legs: Legs, prediction: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.share(leap.images_seen) == 0.0:
            return self.tangent.target(model, leap, legs, prediction)
        return super().target(model, leap, legs, prediction)
