"""The protocol of guidance: a model wrapped into a model with the same interface."""

from abc import ABC, abstractmethod

from flowexp.models import Model
from flowexp.requirements import Part

__all__ = ["Guidance", "guided", "NoGuidance"]


class Guidance(Part, ABC):
    """A rule that wraps a model into a guided model.

    Samplers count evaluations by the wrapped model's ``evaluations_per_call``.
    """

    @abstractmethod
    def wrap(self, model: Model) -> Model:
        """The guided model."""


def guided(model: Model, *, guidance: Guidance) -> Model:
    """The guided model, as a ``_target_`` where a part needs a model, such as a teacher."""
    return guidance.wrap(model)


class NoGuidance(Guidance):
    """The model as it is."""

    def wrap(self, model: Model) -> Model:
        return model
