"""Making noise-data pairs with a trained flow, in a store that survives kills and checks itself."""

from flowexp.pairs.base import PairMaker
from flowexp.pairs.from_data import FromData
from flowexp.pairs.from_noise import FromNoise
from flowexp.pairs.store import verify, write_store

__all__ = ["FromData", "FromNoise", "PairMaker", "verify", "write_store"]
