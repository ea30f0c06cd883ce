"""Guidance: models wrapped into models."""

from flowexp.guidance.base import Guidance, NoGuidance, guided
from flowexp.guidance.classifier_free import ClassifierFree

__all__ = ["Guidance", "NoGuidance", "ClassifierFree", "guided"]
