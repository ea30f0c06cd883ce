"""Parameterizations: how the raw network becomes a prediction."""

from flowexp.parameterizations.base import NetworkInputs, Parameterization
from flowexp.parameterizations.direct import DataPrediction, NoisePrediction, VelocityPrediction
from flowexp.parameterizations.edm import EDMPreconditioning

__all__ = [
    "Parameterization",
    "NetworkInputs",
    "EDMPreconditioning",
    "VelocityPrediction",
    "NoisePrediction",
    "DataPrediction",
]
