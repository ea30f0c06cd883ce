"""Small sample sets and a counting extractor for the metric tests."""

from dataclasses import dataclass

import numpy as np

from flowexp.metrics import RawValues


@dataclass(frozen=True)
class Samples:
    images: np.ndarray
    fingerprint: str
    name: str = "toy/train"
    notice: str | None = None


class CountingRaw(RawValues):
    """Raw values that remember how many samples they were asked for."""

    seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return super().__call__(images)


def points(n, *, dim=3, seed=0, shift=0.0, name="toy/train"):
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(n, dim)) + shift).astype(np.float32)
    return Samples(values, fingerprint=f"points-{n}-{dim}-{seed}-{shift}", name=name)
