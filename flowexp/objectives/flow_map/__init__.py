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
from flowexp.objectives.flow_map.terminal_velocity import (
    ConstantScale,
    InverseScale,
    TerminalVelocityMatching,
    UniformScale,
)

__all__ = [
    "Adaptive",
    "Average",
    "AverageVelocity",
    "CentralDifference",
    "Comparison",
    "ConstantScale",
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
    "InverseScale",
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
    "TerminalVelocityMatching",
    "Unchanged",
    "UniformScale",
]
