"""Objectives: what is regressed."""

from flowexp.objectives import premetrics, weightings
from flowexp.objectives.base import Loss, Objective
from flowexp.objectives.bridge_matching import BridgeMatching
from flowexp.objectives.premetrics import Premetric, PseudoHuber, SquaredL2
from flowexp.objectives.regression import PredictionKind, Regression
from flowexp.objectives.weightings import Weighting

__all__ = [
    "Loss",
    "Objective",
    "BridgeMatching",
    "Premetric",
    "PseudoHuber",
    "SquaredL2",
    "PredictionKind",
    "Regression",
    "Weighting",
    "premetrics",
    "weightings",
]
