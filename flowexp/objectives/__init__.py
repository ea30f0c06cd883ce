"""Objectives: what is regressed."""

from flowexp.objectives import premetrics, weightings
from flowexp.objectives.base import Loss, Objective
from flowexp.objectives.bridge_matching import BridgeMatching
from flowexp.objectives.finite_set import finite_set_mean
from flowexp.objectives.poisson_field import FieldPoints, PoissonField, field_points
from flowexp.objectives.premetrics import Premetric, PseudoHuber, SquaredL2
from flowexp.objectives.regression import PredictionKind, Regression
from flowexp.objectives.stable_target import StableTarget
from flowexp.objectives.weightings import Weighting

__all__ = [
    "Loss",
    "Objective",
    "BridgeMatching",
    "FieldPoints",
    "PoissonField",
    "StableTarget",
    "field_points",
    "finite_set_mean",
    "Premetric",
    "PseudoHuber",
    "SquaredL2",
    "PredictionKind",
    "Regression",
    "Weighting",
    "premetrics",
    "weightings",
]
