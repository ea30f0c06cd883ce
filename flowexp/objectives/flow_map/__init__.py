"""Objectives of flow maps: who drives the first leg, how long it is, and what is regressed."""

from flowexp.objectives.flow_map.derivatives import JVP, CentralDifference, Derivative
from flowexp.objectives.flow_map.drivers import (
    DataVelocity,
    Driver,
    HeadVelocity,
    OwnStep,
    OwnVelocity,
    TeacherVelocity,
)
from flowexp.objectives.flow_map.error_weights import (
    Adaptive,
    AdaptiveByShare,
    ErrorWeight,
    Unchanged,
)
from flowexp.objectives.flow_map.guidance_inputs import (
    DrawnGuidance,
    GuidanceInputs,
    NoGuidanceInputs,
)
from flowexp.objectives.flow_map.guided import (
    ConstantMix,
    DecayingMix,
    Guided,
    MixAsTold,
    VelocityMix,
)
from flowexp.objectives.flow_map.labels import DropEach, DropFirst, KeepLabels, LabelDrop
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
    "AdaptiveByShare",
    "Average",
    "AverageVelocity",
    "CentralDifference",
    "Comparison",
    "ConstantMix",
    "ConstantShare",
    "CosineShare",
    "DataVelocity",
    "DecayingMix",
    "Derivative",
    "DrawnGuidance",
    "Driver",
    "DropEach",
    "DropFirst",
    "EndPoint",
    "ErrorWeight",
    "ExponentialShare",
    "FiniteLeg",
    "FixedShare",
    "FlowMapMatching",
    "GivenMiddle",
    "GuidanceInputs",
    "Guided",
    "HeadVelocity",
    "Itself",
    "JVP",
    "KeepLabels",
    "LabelDrop",
    "Leap",
    "Leg",
    "Legs",
    "LinearShare",
    "LogarithmicShare",
    "MixAsTold",
    "NoGuidanceInputs",
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
    "VelocityMix",
]
