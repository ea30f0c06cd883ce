"""Objectives of flow maps: who drives the first leg, how long it is, and what is regressed."""

from flowexp.objectives.flow_map.derivatives import JVP, CentralDifference, Derivative
from flowexp.objectives.flow_map.drivers import (
    DataChord,
    DataVelocity,
    Driver,
    OwnStep,
    OwnVelocity,
    TeacherStep,
    TeacherVelocity,
)
from flowexp.objectives.flow_map.error_weights import Adaptive, ErrorWeight, Unchanged
from flowexp.objectives.flow_map.leap_weights import (
    BoundaryRows,
    InverseGap,
    LeapWeight,
    UniformLeaps,
)
from flowexp.objectives.flow_map.leaps import Average, Itself, Leap, Target
from flowexp.objectives.flow_map.legs import (
    Comparison,
    FixedShare,
    GivenMiddle,
    Leg,
    Legs,
    RandomShare,
    Tangent,
)
from flowexp.objectives.flow_map.matching import FlowMapMatching
from flowexp.objectives.flow_map.perceptual import PerceptualEndPoint
from flowexp.objectives.flow_map.regressions import (
    AverageVelocity,
    EndPoint,
    Regressed,
    Residual,
)
from flowexp.objectives.flow_map.same_dropout import SameDropout
from flowexp.objectives.flow_map.truncated import Truncated

__all__ = [
    "Adaptive",
    "Average",
    "AverageVelocity",
    "BoundaryRows",
    "CentralDifference",
    "Comparison",
    "DataChord",
    "DataVelocity",
    "Derivative",
    "Driver",
    "EndPoint",
    "ErrorWeight",
    "FixedShare",
    "FlowMapMatching",
    "GivenMiddle",
    "InverseGap",
    "Itself",
    "JVP",
    "Leap",
    "LeapWeight",
    "Leg",
    "Legs",
    "OwnStep",
    "OwnVelocity",
    "PerceptualEndPoint",
    "RandomShare",
    "Regressed",
    "Residual",
    "SameDropout",
    "Tangent",
    "Target",
    "TeacherStep",
    "TeacherVelocity",
    "Truncated",
    "Unchanged",
    "UniformLeaps",
]
