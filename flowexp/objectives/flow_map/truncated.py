"""Truncated consistency training: a frozen first-stage model is the target below a time."""

from collections.abc import Iterator

from torch import Tensor

from flowexp.models import Model, WrappedModel
from flowexp.objectives.flow_map.leaps import Target, partition
from flowexp.parameterizations import rows_of
from flowexp.paths import Prediction
from flowexp.requirements import Parts, Unmet, all_of, on_path_of

__all__ = ["TruncatedTarget", "TruncatedModel"]


class TruncatedModel(WrappedModel):
    """A flow map at times t >= ``at``, and another one, ``below``, at smaller times.

    The first model is evaluated in all rows, so that its dropout mask does not depend on their
    times: rows below ``at`` are evaluated at ``at``, and the result is not used.
    """

    def __init__(self, model: Model, *, below: Model, at: float) -> None:
        super().__init__(model)
        self.below = below
        self.boundary = at

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        velocity = self.average_velocity(x_t, t, t, **conditions)
        return Prediction.of_velocity(self.path, x_t, t, velocity)

    def average_velocity(
        self, x_t: Tensor, t: Tensor, r: Tensor, **conditions: Tensor | None
    ) -> Tensor:
        lower, _ = partition((t < self.boundary).expand(len(x_t)))
        above = t.clamp(min=self.boundary)
        velocity = self.model.average_velocity(x_t, above, r, **conditions)
        if len(lower) == 0:
            return velocity
        t, r = t.expand(len(x_t)), r.expand(len(x_t))
        chosen = rows_of(conditions, lower)
        found = self.below.average_velocity(x_t[lower], t[lower], r[lower], **chosen)
        return velocity.index_put((lower,), found.to(velocity.dtype))


class TruncatedTarget(Target):
    """The network in training at s >= ``at``, and the frozen model of the first stage below.

    Args:
        teacher: Consistency model of the first stage.
        at: The boundary t', a time of the path, > 0.

    Source: Lee et al., TCM, 2024, arXiv 2410.14895, section 3.2.
    """

    def __init__(self, *, teacher: Model, at: float = 1.0) -> None:
        if not at > 0.0:
            raise ValueError(f"at is {at}; expected a positive time")
        self.teacher = teacher
        self.at = float(at)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A teacher that is a flow map, on the same path."""
        yield from all_of(on_path_of(self.teacher, parts), self._flow_map())

    def _flow_map(self) -> Iterator[Unmet]:
        if not self.teacher.is_flow_map:
            problem = "the teacher is no flow map, but the first stage of one is needed."
            yield Unmet(".teacher", problem, "Name a run of a consistency model: teacher=DIR.")

    def of(self, model: Model) -> Model:
        return TruncatedModel(model, below=self.teacher, at=self.at)
