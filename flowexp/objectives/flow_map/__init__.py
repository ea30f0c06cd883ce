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
    Unweighted,
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
    GuidanceScaleMix,
    Guided,
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
    Draws,
    EMATarget,
    Leap,
    OnlineTarget,
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
    GuidedShortest,
    ShortcutLeg,
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
    TruncatedTarget,
)

__all__ = [
    "Adaptive",
    "AdaptiveByShare",
    "EMATarget",
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
    "ShortcutLeg",
    "DrawnGuidance",
    "Draws",
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
    "OnlineTarget",
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
    "GuidanceScaleMix",
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
    "TruncatedTarget",
    "Unweighted",
    "UniformLeaps",
    "UniformScale",
    "VelocityMix",
    "forward_mode",
    "gradients",
]
