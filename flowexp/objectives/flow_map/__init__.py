"""Objectives of flow maps: who drives the first leg, how long it is, and what is regressed."""

from flowexp.objectives.flow_map.derivative_legs import DerivativeLeg, Eulerian, Lagrangian
from flowexp.objectives.flow_map.derivatives import (
    JVP,
    CentralDifference,
    Derivative,
    forward_mode,
)
from flowexp.objectives.flow_map.drivers import (
    DataVelocity,
    Driver,
    OwnStep,
    OwnVelocity,
    TeacherVelocity,
)
from flowexp.objectives.flow_map.error_weights import Adaptive, ErrorWeight, Unchanged
from flowexp.objectives.flow_map.leaps import Average, Itself, Leap, Target, gradients
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
from flowexp.objectives.flow_map.log_variance import LearnedLogVariance
from flowexp.objectives.flow_map.matching import FlowMapMatching
from flowexp.objectives.flow_map.regressions import (
    AverageVelocity,
    EndPoint,
    Regressed,
    Residual,
)
from flowexp.objectives.flow_map.same_dropout import SameDropout
from flowexp.objectives.flow_map.trigflow_tangent import (
    Clipped,
    Normalized,
    TangentLimit,
    TrigFlowOutput,
    TrigFlowTangent,
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
    "Clipped",
    "Comparison",
    "ConstantShare",
    "CosineShare",
    "DataVelocity",
    "Derivative",
    "DerivativeLeg",
    "Driver",
    "EndPoint",
    "ErrorWeight",
    "ExponentialShare",
    "FiniteLeg",
    "Eulerian",
    "FixedShare",
    "FlowMapMatching",
    "GivenMiddle",
    "Itself",
    "JVP",
    "Lagrangian",
    "Leap",
    "LearnedLogVariance",
    "Leg",
    "Legs",
    "LinearShare",
    "LogarithmicShare",
    "Normalized",
    "OwnStep",
    "OwnVelocity",
    "RandomShare",
    "Regressed",
    "Residual",
    "SameDropout",
    "ScheduledShare",
    "ShareSchedule",
    "SigmoidShare",
    "StepShare",
    "Tangent",
    "TangentLimit",
    "Target",
    "TeacherVelocity",
    "TrigFlowOutput",
    "TrigFlowTangent",
    "Unchanged",
    "forward_mode",
    "gradients",
]
