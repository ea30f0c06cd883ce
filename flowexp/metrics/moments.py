"""Mean and covariance of features, streamed in float64.

Batches are merged by the pairwise update of Chan et al., which does not cancel when the mean is
large against the spread (a sum of f f^T minus n m m^T does).

Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
sample variances".
"""

from typing import Self

import torch
from torch import Tensor


class Moments:
    """Streaming count n, mean m and M2 = sum (f - m)(f - m)^T of feature vectors.

    While n <= d the raw features are kept too: the covariance is then rank deficient, and the
    Frechet distance is exact only from the features.

    Everything lives on the CPU in float64.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | None = None
        self._m2: Tensor | None = None
        self._kept: list[Tensor] | None = []

    @property
    def mean(self) -> Tensor:
        """Sample mean, (d,) float64."""
        if self._mean is None:
            raise ValueError("no sample has been added")
        return self._mean

    @property
    def covariance(self) -> Tensor:
        """Sample covariance with n - 1 in the denominator, (d, d) float64.

        Raises:
            ValueError: With fewer than 2 samples.
        """
        if self._m2 is None or self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        return self._m2 / (self.count - 1)

    @property
    def features(self) -> Tensor | None:
        """All features seen, (n, d) float64, while n <= d; None afterwards."""
        return torch.cat(self._kept) if self._kept else None

    def update(self, features: Tensor) -> None:
        """Add a batch of features.

        Args:
            features: (B, d), any float dtype, any device.

        Raises:
            ValueError: If it is not a matrix or d changes.
        """
        if features.ndim != 2:
            raise ValueError(f"features must be (B, d), got shape {tuple(features.shape)}")
        batch = features.detach().to("cpu", torch.float64)
        if len(batch) == 0:
            return
        mean = batch.mean(0)
        centred = batch - mean
        self._merge(len(batch), mean, centred.T @ centred, [batch])

    def merge(self, other: Self) -> None:
        """Add everything another accumulator has seen.

        Args:
            other: Left unchanged.
        """
        if other._mean is not None and other._m2 is not None:
            kept = None if other._kept is None else list(other._kept)
            self._merge(other.count, other._mean, other._m2, kept)

    def _merge(self, count: int, mean: Tensor, m2: Tensor, kept: list[Tensor] | None) -> None:
        total = self.count + count
        if self._mean is None or self._m2 is None:
            self._mean, self._m2 = mean.clone(), m2.clone()
        elif mean.shape != self._mean.shape:
            raise ValueError(f"{len(mean)} features do not match the {len(self._mean)} before")
        else:
            delta = mean - self._mean
            self._mean = self._mean + delta * (count / total)
            self._m2 += m2
            self._m2.addr_(delta, delta, alpha=self.count * count / total)
        if self._kept is not None and kept is not None and total <= len(mean):
            self._kept.extend(kept)
        else:
            self._kept = None
        self.count = total

    def state(self) -> dict[str, Tensor]:
        """Plain CPU tensors: ``count``, ``mean``, ``m2`` and, while kept, ``features``."""
        state = {"count": torch.tensor(self.count, dtype=torch.int64)}
        if self._mean is not None and self._m2 is not None:
            state |= {"mean": self._mean.clone(), "m2": self._m2.clone()}
        if self._kept:
            state["features"] = torch.cat(self._kept)
        return state

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """The inverse of ``state``."""
        moments = cls()
        moments.count = int(state["count"])
        if moments.count:
            moments._mean, moments._m2 = state["mean"].clone(), state["m2"].clone()
            moments._kept = [state["features"].clone()] if "features" in state else None
        return moments
