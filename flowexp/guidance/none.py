"""No guidance."""

from flowexp.guidance.base import Guidance
from flowexp.models import Model

__all__ = ["NoGuidance"]


class NoGuidance(Guidance):
    """The model as it is."""

    def wrap(self, model: Model) -> Model:
        return model
