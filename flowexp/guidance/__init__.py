"""Guidance: models wrapped into models."""

from flowexp.guidance.base import Guidance, guided
from flowexp.guidance.classifier_free import ClassifierFree
from flowexp.guidance.none import NoGuidance

__all__ = ["Guidance", "NoGuidance", "ClassifierFree", "guided"]
