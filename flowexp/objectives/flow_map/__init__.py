"""Objectives of flow maps: who drives the first leg, how long it is, and what is regressed."""

from flowexp.objectives.flow_map.derivative_legs import (
    DerivativeLeg,
    Eulerian,
    Lagrangian,
)
from flowexp.objectives.flow_map.derivatives import (
    JVP,
    CentralDifference,
    Derivative,
    forward_mode,
)
from flowexp.objectives.flow_map.drivers import (
    DataChord,
    DataVelocity,
    Driver,
    HeadVelocity,
    OwnStep,
    OwnVelocity,
    TeacherStep,
    TeacherVelocity,
)
from flowexp.objectives.flow_map.error_weights import (
    Adaptive,
    AdaptiveByShare,
    ErrorWeight,
    Unchanged,
)
from flowexp.objectives.flow_map.guidance_inputs import (
    ConstantScale,
    DrawnGuidance,
    GuidanceInputs,
    InverseScale,
    NoGuidanceInputs,
    UniformScale,
)
from flowexp.objectives.flow_map.guided import (
    ConstantMix,
    DecayingMix,
    Guided,
    MixAsTold,
    VelocityMix,
)
from flowexp.objectives.flow_map.labels import (
    DropEach,
    DropFirst,
    KeepLabels,
    LabelDrop,
)
from flowexp.objectives.flow_map.leap_weights import (
    BoundaryRows,
    InverseGap,
    LeapWeight,
    UniformLeaps,
)
from flowexp.objectives.flow_map.leaps import (
    Average,
    Itself,
    Leap,
    Target,
    gradients,
)
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
from flowexp.objectives.flow_map.log_variance import (
    LearnedLogVariance,
)
from flowexp.objectives.flow_map.matching import (
    FlowMapMatching,
)
from flowexp.objectives.flow_map.perceptual import (
    PerceptualEndPoint,
)
from flowexp.objectives.flow_map.regressions import (
    AverageVelocity,
    EndPoint,
    Regressed,
    Residual,
)
from flowexp.objectives.flow_map.same_dropout import (
    SameDropout,
)
from flowexp.objectives.flow_map.scheduled_leg import (
    ScheduledShare,
)
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
from flowexp.objectives.flow_map.shortcut import (
    Doubling,
    GuidedShortest,
)
from flowexp.objectives.flow_map.terminal_velocity import (
    TerminalVelocityMatching,
)
from flowexp.objectives.flow_map.trigflow_tangent import (
    Clipped,
    Normalized,
    TangentLimit,
    TrigFlowOutput,
    TrigFlowTangent,
)
from flowexp.objectives.flow_map.truncated import (
    Truncated,
)

__all__ = [
    "Adaptive",
    "AdaptiveByShare",
    "Average",
    "AverageVelocity",
    "BoundaryRows",
    "CentralDifference",
    "Clipped",
    "Comparison",
    "ConstantMix",
    "ConstantScale",
    "ConstantShare",
    "CosineShare",
    "DataChord",
    "DataVelocity",
    "DecayingMix",
    "Derivative",
    "DerivativeLeg",
    "Doubling",
    "DrawnGuidance",
    "Driver",
    "DropEach",
    "DropFirst",
    "EndPoint",
    "ErrorWeight",
    "Eulerian",
    "ExponentialShare",
    "FiniteLeg",
    "FixedShare",
    "FlowMapMatching",
    "GivenMiddle",
    "GuidanceInputs",
    "Guided",
    "GuidedShortest",
    "HeadVelocity",
    "InverseGap",
    "InverseScale",
    "Itself",
    "JVP",
    "KeepLabels",
    "LabelDrop",
    "Lagrangian",
    "Leap",
    "LeapWeight",
    "LearnedLogVariance",
    "Leg",
    "Legs",
    "LinearShare",
    "LogarithmicShare",
    "MixAsTold",
    "NoGuidanceInputs",
    "Normalized",
    "OwnStep",
    "OwnVelocity",
    "PerceptualEndPoint",
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
    "TeacherStep",
    "TeacherVelocity",
    "TerminalVelocityMatching",
    "TrigFlowOutput",
    "TrigFlowTangent",
    "Truncated",
    "Unchanged",
    "UniformLeaps",
    "UniformScale",
    "VelocityMix",
    "forward_mode",
    "gradients",
]
