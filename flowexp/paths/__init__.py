"""Paths: a schedule (alpha, sigma) joined with a source, the distribution of e."""

from flowexp.paths.base import Coefficients, Schedule, Source
from flowexp.paths.bridge import BridgeNoise, BrownianNoise, ConstantNoise, bridge_point
from flowexp.paths.conversions import Affine, Conversion, Prediction
from flowexp.paths.interpolants import Cosine, Linear, Polynomial, Trigonometric
from flowexp.paths.path import Path, PathPoint
from flowexp.paths.scaled import ScaledNoise
from flowexp.paths.sources import (
    ClippedStudentT,
    Gaussian,
    RadiusClippedStudentT,
    StudentT,
    beta_radius,
)
from flowexp.paths.ve import VE, edm_sigmas
from flowexp.paths.vp import VP, DiscreteVP, LinearVP, SubVP

__all__ = [
    "Coefficients",
    "Path",
    "PathPoint",
    "Schedule",
    "Source",
    "Linear",
    "Polynomial",
    "ScaledNoise",
    "VE",
    "VP",
    "LinearVP",
    "SubVP",
    "DiscreteVP",
    "Cosine",
    "Trigonometric",
    "Affine",
    "Conversion",
    "Prediction",
    "Gaussian",
    "StudentT",
    "ClippedStudentT",
    "RadiusClippedStudentT",
    "beta_radius",
    "BridgeNoise",
    "BrownianNoise",
    "ConstantNoise",
    "bridge_point",
    "edm_sigmas",
]
