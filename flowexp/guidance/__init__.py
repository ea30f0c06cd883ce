"""Guidance: models wrapped into models."""

from flowexp.guidance.base import Guidance, NoGuidance, guided
from flowexp.guidance.classifier_free import ClassifierFree
from flowexp.guidance.dynamic_thresholding import DynamicThresholding
from flowexp.guidance.embedded import Embedded

__all__ = ["Guidance", "NoGuidance", "ClassifierFree", "DynamicThresholding", "Embedded", "guided"]
