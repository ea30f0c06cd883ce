"""Making noise-data pairs with a trained flow, in a store that survives kills and checks itself."""

from flowexp.pairs.makers import FromData, FromNoise, PairMaker
from flowexp.pairs.store import verify, write_store

__all__ = ["FromData", "FromNoise", "PairMaker", "verify", "write_store"]
