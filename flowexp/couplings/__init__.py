"""Couplings: which source draw goes with which data point."""

from flowexp.couplings.annealed_pairs import (
    AnnealedPairs,
    Annealing,
    ConstantAnnealing,
    CosineAnnealing,
    ExponentialAnnealing,
    LinearAnnealing,
)
from flowexp.couplings.base import Coupling, Pairs
from flowexp.couplings.chords import Chords
from flowexp.couplings.entropic_ot import EntropicOT
from flowexp.couplings.independent import Independent
from flowexp.couplings.minibatch_ot import MinibatchOT
from flowexp.couplings.stored_pairs import StoredPairs

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
]
