"""Couplings: which source draw goes with which data point."""

from flowexp.couplings.base import Coupling, Independent, Pairs, WholeBatch
from flowexp.couplings.chords import Chords
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

__all__ = [
    "Coupling",
    "Pairs",
    "AnnealedPairs",
    "Annealing",
    "Chords",
    "ConstantAnnealing",
    "CosineAnnealing",
    "EntropicOT",
    "ExponentialAnnealing",
    "Independent",
    "LinearAnnealing",
    "MinibatchOT",
    "StoredPairs",
    "WholeBatch",
]
