"""The protocol of guidance: a model wrapped into a model with the same interface."""

from abc import ABC, abstractmethod

from flowexp.models import Model

__all__ = ["Guidance", "guided"]


class Guidance(ABC):
    """A rule that wraps a model into a guided model.

    Samplers count evaluations by the wrapped model's ``evaluations_per_call``.
    """

    @abstractmethod
    def wrap(self, model: Model) -> Model:
        """The guided model."""


def guided(model: Model, *, guidance: Guidance) -> Model:
    """The guided model, as a ``_target_`` where a part needs a model, such as a teacher."""
    return guidance.wrap(model)
