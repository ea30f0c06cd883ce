"""Objectives: what is regressed."""

from flowexp.objectives import premetrics, weightings
from flowexp.objectives.autoencoding import Autoencoding
from flowexp.objectives.base import Loss, Objective, WeightedSum
from flowexp.objectives.flow_guided import FlowGuided
from flowexp.objectives.flow_map import FlowMapMatching, TerminalVelocityMatching
from flowexp.objectives.masked import MaskedRegression
from flowexp.objectives.moment_matching import LaplaceKernel, MomentMatching
from flowexp.objectives.perceptual_regression import PerceptualDistance, PerceptualRegression
from flowexp.objectives.phased import PhasedRectification, segment_between
from flowexp.objectives.poisson_field import FieldPoints, PoissonField, field_points
from flowexp.objectives.premetrics import (
    L1,
    L2,
    ElementwisePseudoHuber,
    Premetric,
    PseudoHuber,
    SquaredL2,
    SquaredL2PerDimension,
    SumOfSquares,
)
from flowexp.objectives.regression import (
    BridgeMatching,
    FlowAndScoreMatching,
    PredictionKind,
    Regression,
)
from flowexp.objectives.stable_target import StableTarget, finite_set_mean
from flowexp.objectives.uncertainty import LogVariance, UncertaintyRegression
from flowexp.objectives.velocity_refinement import VelocityRefinement
from flowexp.objectives.weightings import Weighting

__all__ = [
    "Autoencoding",
    "Loss",
    "Objective",
    "BridgeMatching",
    "FlowAndScoreMatching",
    "FieldPoints",
    "FlowGuided",
    "FlowMapMatching",
    "LaplaceKernel",
    "LogVariance",
    "MaskedRegression",
    "MomentMatching",
    "PerceptualDistance",
    "PerceptualRegression",
    "PhasedRectification",
    "PoissonField",
    "StableTarget",
    "TerminalVelocityMatching",
    "UncertaintyRegression",
    "VelocityRefinement",
    "WeightedSum",
    "field_points",
    "finite_set_mean",
    "segment_between",
    "L1",
    "L2",
    "ElementwisePseudoHuber",
    "Premetric",
    "PseudoHuber",
    "SquaredL2",
    "SquaredL2PerDimension",
    "SumOfSquares",
    "PredictionKind",
    "Regression",
    "Weighting",
    "premetrics",
    "weightings",
]
