"""Calibrations: measured once on a trained model so that samplers need fewer evaluations.

An argument outside its documented range is a ValueError.
"""

from flowexp.calibration.base import Calibrated, Calibration, Subject, manifest_of
from flowexp.calibration.chords import ChordCalibration
from flowexp.calibration.model_statistics import ModelStatisticsCalibration, write_reference
from flowexp.calibration.statistics_pass import measure
from flowexp.calibration.step_costs import StepCostCalibration

__all__ = [
    "Calibrated",
    "Calibration",
    "ChordCalibration",
    "ModelStatisticsCalibration",
    "StepCostCalibration",
    "Subject",
    "manifest_of",
    "measure",
    "write_reference",
]
