"""What guidance answers: how a model becomes another model with the same face."""

from abc import ABC, abstractmethod

from flowexp.models import Model
from flowexp.requirements import Part

__all__ = ["Guidance", "guided"]


class Guidance(Part, ABC):
    """A rule that wraps a model into a guided model.

    The wrapped model states what one call costs in ``evaluations_per_call``, from which samplers
    count their evaluations.
    """

    @abstractmethod
    def wrap(self, model: Model) -> Model:
        """The guided model."""


def guided(model: Model, *, guidance: Guidance) -> Model:
    """A guided model, to be named as a ``_target_`` where a part needs a model, as a teacher.

    Args:
        model: What is guided.
        guidance: How.
    """
    return guidance.wrap(model)
