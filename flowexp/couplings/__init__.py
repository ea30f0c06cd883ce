"""Couplings: which source draw goes with which data point."""

from flowexp.couplings.assignment import AssignmentSolver, NetworkSimplex, ShortestPaths
from flowexp.couplings.base import BatchCoupling, Coupling, Independent, Items, Pairs, WholeBatch
from flowexp.couplings.chords import Chords
from flowexp.couplings.semidiscrete import SemidiscreteOT
from flowexp.couplings.stored_pairs import (
    AnnealedPairs,
    Annealing,
    ConstantAnnealing,
    CosineAnnealing,
    ExponentialAnnealing,
    LinearAnnealing,
    StoredPairs,
)
from flowexp.couplings.transport import EntropicOT, MinibatchOT
from flowexp.couplings.weighted import (
    DataCorrection,
    EuclideanCost,
    NoCorrection,
    PairCost,
    SquaredCost,
    TiltCorrection,
    Weighted,
)

__all__ = [
    "Coupling",
    "Pairs",
    "AnnealedPairs",
    "Annealing",
    "AssignmentSolver",
    "BatchCoupling",
    "Chords",
    "ConstantAnnealing",
    "CosineAnnealing",
    "DataCorrection",
    "EntropicOT",
    "EuclideanCost",
    "ExponentialAnnealing",
    "Independent",
    "Items",
    "LinearAnnealing",
    "MinibatchOT",
    "NetworkSimplex",
    "NoCorrection",
    "PairCost",
    "SemidiscreteOT",
    "ShortestPaths",
    "SquaredCost",
    "StoredPairs",
    "TiltCorrection",
    "Weighted",
    "WholeBatch",
]
