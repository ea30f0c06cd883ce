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
    FiniteLeg,
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
from flowexp.objectives.flow_map.scheduled_leg import ScheduledShare
from flowexp.objectives.flow_map.schedules import (
    ConstantShare,
    CosineShare,
    ExponentialShare,
    LinearShare,
    LogarithmicShare,
    ShareSchedule,
    SigmoidShare,
    StepShare,
)

__all__ = [
    "Adaptive",
    "Average",
    "AverageVelocity",
    "CentralDifference",
    "Comparison",
    "ConstantShare",
    "CosineShare",
    "DataVelocity",
    "Derivative",
    "Driver",
    "EndPoint",
    "ErrorWeight",
    "ExponentialShare",
    "FiniteLeg",
    "FixedShare",
    "FlowMapMatching",
    "GivenMiddle",
    "Itself",
    "JVP",
    "Leap",
    "Leg",
    "Legs",
    "LinearShare",
    "LogarithmicShare",
    "OwnStep",
    "OwnVelocity",
    "RandomShare",
    "Regressed",
    "Residual",
    "ScheduledShare",
    "ShareSchedule",
    "SigmoidShare",
    "StepShare",
    "Tangent",
    "Target",
    "TeacherVelocity",
    "Unchanged",
]
