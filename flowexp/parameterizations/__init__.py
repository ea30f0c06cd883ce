"""Parameterizations: how the raw network becomes a prediction."""

from flowexp.parameterizations.base import Conditions, NetworkInputs, Parameterization
from flowexp.parameterizations.direct import DataPrediction, NoisePrediction, VelocityPrediction
from flowexp.parameterizations.edm import EDMPreconditioning
from flowexp.parameterizations.iddpm_preconditioning import IDDPMPreconditioning
from flowexp.parameterizations.poisson_field import (
    FieldConversion,
    PoissonFieldPrediction,
    normalized_field,
)
from flowexp.parameterizations.ve_preconditioning import VEPreconditioning
from flowexp.parameterizations.velocity_increment import VelocityIncrement
from flowexp.parameterizations.vp_preconditioning import VPPreconditioning

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
