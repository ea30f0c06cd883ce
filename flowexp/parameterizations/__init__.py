"""Parameterizations: how the raw network becomes a prediction."""

from flowexp.parameterizations.base import Conditions, NetworkInputs, Parameterization, rows_of
from flowexp.parameterizations.consistency import ConsistencyPreconditioning
from flowexp.parameterizations.direct import (
    DataPrediction,
    NoisePrediction,
    ReversedVelocityPrediction,
    ScorePrediction,
    VelocityIncrement,
    VelocityPrediction,
)
from flowexp.parameterizations.flow_and_score import FlowAndScore
from flowexp.parameterizations.flow_map import DDIMJump, EulerJump, FlowMap, Jump
from flowexp.parameterizations.poisson_field import (
    FieldConversion,
    PoissonFieldPrediction,
    normalized_field,
)
from flowexp.parameterizations.preconditioning import (
    EDMPreconditioning,
    IDDPMPreconditioning,
    VEPreconditioning,
    VPPreconditioning,
)
from flowexp.parameterizations.trigflow import QuarterCircle, TrigFlow, time_at_angle

__all__ = [
    "Conditions",
    "rows_of",
    "Parameterization",
    "NetworkInputs",
    "ConsistencyPreconditioning",
    "EDMPreconditioning",
    "VPPreconditioning",
    "VEPreconditioning",
    "IDDPMPreconditioning",
    "VelocityPrediction",
    "ReversedVelocityPrediction",
    "VelocityIncrement",
    "NoisePrediction",
    "ScorePrediction",
    "DataPrediction",
    "FlowAndScore",
    "FlowMap",
    "Jump",
    "EulerJump",
    "DDIMJump",
    "FieldConversion",
    "PoissonFieldPrediction",
    "normalized_field",
    "QuarterCircle",
    "TrigFlow",
    "time_at_angle",
]
