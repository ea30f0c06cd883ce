"""Objectives of flow maps: who drives the first leg, how long it is, and what is regressed."""

from flowexp.objectives.flow_map.derivatives import JVP, CentralDifference, Derivative
from flowexp.objectives.flow_map.drivers import (
    DataVelocity,
    Driver,
    OwnStep,
    OwnVelocity,
    TeacherVelocity,
)
from flowexp.objectives.flow_map.error_weights import Adaptive, ErrorWeight, Unchanged
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
from flowexp.objectives.flow_map.regressions import (
    AverageVelocity,
    EndPoint,
    Regressed,
    Residual,
)
from flowexp.objectives.flow_map.shortcut import Doubling, GuidedShortest

__all__ = [
    "Adaptive",
    "Average",
    "AverageVelocity",
    "CentralDifference",
    "Comparison",
    "DataVelocity",
    "Derivative",
    "Doubling",
    "Driver",
    "EndPoint",
    "ErrorWeight",
    "FixedShare",
    "FlowMapMatching",
    "GivenMiddle",
    "GuidedShortest",
    "Itself",
    "JVP",
    "Leap",
    "Leg",
    "Legs",
    "OwnStep",
    "OwnVelocity",
    "RandomShare",
    "Regressed",
    "Residual",
    "Tangent",
    "Target",
    "TeacherVelocity",
    "Unchanged",
]
