"""Couplings: which source draw goes with which data point."""

from flowexp.couplings.base import Coupling, Pairs
from flowexp.couplings.entropic_ot import EntropicOT
from flowexp.couplings.independent import Independent
from flowexp.couplings.minibatch_ot import MinibatchOT

__all__ = ["Coupling", "Pairs", "EntropicOT", "Independent", "MinibatchOT"]
