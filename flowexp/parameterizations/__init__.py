"""Parameterizations: how the raw network becomes a prediction."""

from flowexp.parameterizations.base import Conditions, NetworkInputs, Parameterization
from flowexp.parameterizations.direct import DataPrediction, NoisePrediction, VelocityPrediction
from flowexp.parameterizations.edm import EDMPreconditioning
from flowexp.parameterizations.older_preconditioning import (
    IDDPMPreconditioning,
    VEPreconditioning,
    VPPreconditioning,
)
from flowexp.parameterizations.poisson_field import (
    FieldConversion,
    PoissonFieldPrediction,
    normalized_field,
)
from flowexp.parameterizations.velocity_increment import VelocityIncrement

__all__ = [
    "Conditions",
    "Parameterization",
    "NetworkInputs",
    "EDMPreconditioning",
    "VPPreconditioning",
    "VEPreconditioning",
    "IDDPMPreconditioning",
    "VelocityPrediction",
    "VelocityIncrement",
    "NoisePrediction",
    "DataPrediction",
    "FieldConversion",
    "PoissonFieldPrediction",
    "normalized_field",
]
