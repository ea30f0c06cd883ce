"""Diagnostics: metrics of the model itself, not only of its samples."""

from flowexp.diagnostics.base import ModelMetric, NetworkEvaluations, Setting, records_of
from flowexp.diagnostics.bits_per_dim import BitsPerDim, dequantized
from flowexp.diagnostics.processor_seconds import ProcessorSeconds
from flowexp.diagnostics.solver_error import SolverError
from flowexp.diagnostics.straightness import Curvature, FirstOrderDefect, Straightness, straightness
from flowexp.diagnostics.trajectory import Station, TrajectoryMetric, linear_clock, walk

__all__ = [
    "ModelMetric",
    "Setting",
    "records_of",
    "TrajectoryMetric",
    "Station",
    "linear_clock",
    "walk",
    "Straightness",
    "straightness",
    "Curvature",
    "FirstOrderDefect",
    "BitsPerDim",
    "dequantized",
    "NetworkEvaluations",
    "ProcessorSeconds",
    "SolverError",
]
