"""Training of a small network that predicts how a frozen model's velocity changes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.networks.base import without_condition
from flowexp.objectives.base import Loss, Objective
from flowexp.objectives.premetrics import SquaredL2
from flowexp.objectives.regression import point_of, weighted
from flowexp.parameterizations import Conditions
from flowexp.requirements import Parts, Unmet, all_of

__all__ = ["VelocityRefinement"]


class VelocityRefinement(Objective):
    """``|v(x', t') - v_r(x', t'; c)|^2 / N`` after one short step of the teacher towards the data.

    ``c = v(x_t, t)``, ``dt ~ U(0, max_dt)``, ``x' = x_t - dt c``, ``t' = t - dt``; v is the
    frozen teacher and v_r the trained refiner, which gets c as the condition ``velocity``. No
    trajectory is simulated.

    Args:
        max_dt: Largest step in t, in (0, 1).
        label_dropout: Probability with which the label is dropped, in [0, 1), for guided sampling;
            the network's own label dropout should then be 0.
        first_label_kept: Whether c keeps its label, as in the authors' code; the paper drops it
            everywhere.
        clip: Whether t' is kept within the teacher's range; the authors' code goes below t = 0.
        shared_dt: One dt for the whole batch, as the authors' code, instead of one per sample.

    Source: Zhao et al., FlowTurbo, 2024, arXiv 2409.18128, section 3.2; ``training_losses`` of
    their transport.py.
    """

    needs_unit_time = True
    trains_refiner = True

    def __init__(
        self,
        *,
        teacher: Model,
        max_dt: float = 0.12,
        label_dropout: float = 0.1,
        first_label_kept: bool = False,
        clip: bool = True,
        shared_dt: bool = True,
    ) -> None:
        if not 0.0 < max_dt < 1.0:
            raise ValueError(f"max_dt is {max_dt}; expected a number in (0, 1)")
        if not 0.0 <= label_dropout < 1.0:
            raise ValueError(f"label_dropout is {label_dropout}; expected a number in [0, 1)")
        self.teacher = teacher
        self.max_dt = float(max_dt)
        self.label_dropout = float(label_dropout)
        self.first_label_kept = first_label_kept
        self.clip = clip
        self.shared_dt = shared_dt
        self.premetric = SquaredL2()

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A parameterization that takes a velocity, and the teacher's path."""
        yield from all_of(
            super().needs(parts), self._velocity_for(parts), self._path_of_the_teacher(parts)
        )

    def _velocity_for(self, parts: Parts) -> Iterator[Unmet]:
        if not parts.parameterization.corrects_velocity:
            problem = (
                f"VelocityRefinement trains a network that is given a velocity, but "
                f"{type(parts.parameterization).__name__} has none."
            )
            yield Unmet("parameterization", problem, "Use parameterization=velocity_increment.")

    def _path_of_the_teacher(self, parts: Parts) -> Iterator[Unmet]:
        own, path = self.teacher.path.identity(), parts.path.identity()
        if own != path:
            problem = f"VelocityRefinement refines a teacher on {own}, but the path is {path}."
            yield Unmet(".", problem, "Take the teacher's path.")

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        """Two calls of the teacher, one of the refiner; dt and dropped labels come from ``rng``."""
        point = point_of(pairs, model.path, t)
        count = 1 if self.shared_dt else len(point.x)
        u = torch.rand(count, generator=rng, dtype=torch.float64, device=rng.device)
        dt = self.max_dt * u.to(point.x.device)
        later = self._with_labels_dropped(pairs, rng)
        first = dict(pairs.conditions) if self.first_label_kept else later
        value = self.deviation(model, point.x_t, point.t, dt=dt, first=first, later=later)
        return Loss(weighted(value, pairs=pairs))

    def deviation(
        self,
        model: Model,
        x_t: Tensor,
        t: Tensor,
        *,
        dt: Tensor,
        first: Conditions,
        later: Conditions,
    ) -> Tensor:
        """Mean square error of the refined velocity, (B,), in the dtype of ``x_t``.

        ``dt`` are steps towards the data, (1,) or (B,), float64; ``first`` the conditions of the
        teacher's first velocity, ``later`` those of its second and of the refiner.
        """
        dt = dt.expand_as(t)
        if self.clip:
            dt = torch.minimum(dt, t - max(self.teacher.time_range[0], 0.0)).clamp(min=0.0)
        with torch.no_grad():
            velocity = self.teacher.velocity(x_t, t, **first)
            moved = x_t - expand_as(dt, x_t) * velocity
            target = self.teacher.velocity(moved, t - dt, **later)
        refined = model.velocity(moved, t - dt, velocity=velocity, **later)
        return self.premetric(refined - target)

    def _with_labels_dropped(self, pairs: Pairs, rng: torch.Generator) -> Conditions:
        conditions = dict(pairs.conditions)
        labels = conditions.get("labels")
        if labels is None or self.label_dropout == 0.0:
            return conditions
        kept = torch.rand(len(labels), generator=rng, device=rng.device) >= self.label_dropout
        kept = kept.to(labels.device).reshape(-1, *([1] * (labels.ndim - 1)))
        conditions["labels"] = torch.where(kept, labels, without_condition(labels))
        return conditions
