"""The protocol of guidance: a model wrapped into a model with the same interface."""

import logging
from abc import ABC, abstractmethod

from flowexp.models import Model
from flowexp.requirements import NEVER_LEARNT, Part

__all__ = ["Guidance", "guided", "NoGuidance"]

_LOG = logging.getLogger(__name__)


class Guidance(Part, ABC):
    """A rule that wraps a model into a guided model.

    Samplers count evaluations by the wrapped model's ``evaluations_per_call``.
    """

    @abstractmethod
    def wrap(self, model: Model) -> Model:
        """The guided model."""


def guided(model: Model, *, guidance: Guidance) -> Model:
    """The guided model, as a ``_target_`` where a part needs a model, such as a teacher.

    Logs a warning if it needs predictions without label, which the training did not include.
    """
    made = guidance.wrap(model)
    if made.asks_without_label and made.labels_dropped is False:
        _LOG.warning(
            "%s uses the prediction without label, %s.", type(guidance).__name__, NEVER_LEARNT
        )
    return made


class NoGuidance(Guidance):
    """The model as it is."""

    def wrap(self, model: Model) -> Model:
        return model
