"""Streamed moments of features, and the exact Frechet distance of the Gaussians they define.

    FD = |m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2)

With factors S = F^T F the last trace is the nuclear norm of F_a F_b^T. From features F is the
centred matrix / sqrt(n - 1), so a rank-deficient covariance (n <= d) costs no accuracy; from a
covariance S_b with root R (S_b = R^T R) it is the sum of square roots of the eigenvalues of the
symmetric R S_a R^T. No complex number, no added diagonal.

Source: Heusel et al. 2017, arXiv 1706.08500, eq. 6. The reference codes take scipy's sqrtm or the
eigenvalues of S_a S_b, which lose half the digits in every null direction.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

_NULL = 1e-14
_NEGATIVE = 1e-6


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's CPU linear algebra on one thread.

    On cores that others use as well, two threads are 2 to 14 times slower than one for the
    eigenvalues of a 2048 x 2048 matrix.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class FeatureMoments:
    """Streaming count n, mean m and M2 = sum (f - m)(f - m)^T of features, float64, on the CPU.

    Batches are merged by the pairwise update, which does not cancel when the mean is large against
    the spread (a sum of f f^T minus n m m^T does). While n <= d the raw features are kept too: the
    covariance is then rank deficient, and the Frechet distance is exact only from the features.

    Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
    sample variances".
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
        """Covariance with n - 1 in the denominator, (d, d) float64; ``ValueError`` if n < 2."""
        if self._m2 is None or self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        return self._m2 / (self.count - 1)

    @property
    def features(self) -> Tensor | None:
        """All features seen, (n, d) float64, while n <= d; None afterwards."""
        return torch.cat(self._kept) if self._kept else None

    def update(self, features: Tensor) -> None:
        """Add features, (B, d), any dtype and device; ``ValueError`` if d changes."""
        if features.ndim != 2:
            raise ValueError(f"features must be (B, d), got shape {tuple(features.shape)}")
        batch = features.detach().to("cpu", torch.float64)
        if len(batch) == 0:
            return
        mean = batch.mean(0)
        centred = batch - mean
        self._merge(len(batch), mean, centred.T @ centred, [batch])

    def merge(self, other: Self) -> None:
        """Add everything another accumulator has seen, which is left unchanged."""
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


@dataclass(frozen=True)
class FrechetReference:
    """One side of the distance: the mean, (d,) float64, and a root of the covariance S.

    It is R with R^T R = S, (r, d) float64, r <= d; null directions are dropped.
    """

    mean: Tensor
    root: Tensor

    @classmethod
    def from_features(cls, features: Tensor) -> Self:
        """The reference of raw features, (n, d), n >= 2; exact also when n <= d."""
        return cls(*_mean_and_factor(features))

    @classmethod
    def from_moments(cls, mean: Tensor, covariance: Tensor) -> Self:
        """The reference of a mean, (d,), and a positive semidefinite covariance, (d, d).

        Eigenvalues below 1e-14 of the largest are rounding noise of null directions and are
        dropped: their square roots would enter at 1e-7.
        """
        mean, covariance = _checked_moments(mean, covariance)
        with one_thread():
            values, vectors = torch.linalg.eigh(covariance)
        kept = values > _NULL * values[-1].clamp(min=0)
        root = values[kept].sqrt()[:, None] * vectors[:, kept].T
        return cls(mean, root)

    @classmethod
    def of(cls, moments: FeatureMoments) -> Self:
        """The reference of streamed features, exact also when n <= d."""
        if moments.features is not None:
            return cls.from_features(moments.features)
        return cls.from_moments(moments.mean, moments.covariance)

    def distance_to(self, moments: FeatureMoments) -> float:
        """FD to streamed features, exact also when n <= d."""
        if moments.features is not None:
            return self.distance_to_features(moments.features)
        return self.distance_to_moments(moments.mean, moments.covariance)

    def distance_to_features(self, features: Tensor) -> float:
        """FD to a set of raw features, (n, d), n >= 2."""
        mean, factor = _mean_and_factor(features)
        self._check_dim(mean)
        with one_thread():
            cross = torch.linalg.svdvals(factor @ self.root.T).sum()
        return self._assemble(mean, factor.square().sum(), cross)

    def distance_to_moments(self, mean: Tensor, covariance: Tensor) -> float:
        """FD to a mean, (d,), and a covariance, (d, d)."""
        mean, covariance = _checked_moments(mean, covariance)
        self._check_dim(mean)
        with one_thread():
            sandwich = self.root @ covariance @ self.root.T
            values = torch.linalg.eigvalsh((sandwich + sandwich.T) / 2)
        return self._assemble(mean, covariance.trace(), values.clamp(min=0).sqrt().sum())

    def _check_dim(self, mean: Tensor) -> None:
        if mean.shape != self.mean.shape:
            raise ValueError(f"{len(mean)} features against a reference of {len(self.mean)}")

    def _assemble(self, mean: Tensor, trace: Tensor, cross: Tensor) -> float:
        traces = trace + self.root.square().sum()
        value = float((mean - self.mean).square().sum() + traces - 2 * cross)
        if value < -_NEGATIVE * float(traces):
            raise ArithmeticError(
                f"the Frechet distance is {value:.6g}, negative beyond rounding: "
                "a covariance is not positive semidefinite"
            )
        return max(value, 0.0)


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Exact FD >= 0 (the squared distance, as is customary) of features, (n >= 2, d) each.

    Raises:
        ValueError: If shapes do not match or a value is not finite.
    """
    return FrechetReference.from_features(features_b).distance_to_features(features_a)


def frechet_distance_from_moments(
    mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor
) -> float:
    """Frechet distance from means, (d,), and covariances, (d, d).

    Rank-deficient covariances are good to about 1e-6 relative; use ``frechet_distance`` then.

    Raises:
        ValueError: If shapes do not match or a value is not finite.
        ArithmeticError: If the result is negative beyond rounding.
    """
    reference = FrechetReference.from_moments(mean_b, covariance_b)
    return reference.distance_to_moments(mean_a, covariance_a)


def _checked_moments(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    if covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"mean {tuple(mean.shape)} and covariance {tuple(covariance.shape)}")
    mean, covariance = mean.to("cpu", torch.float64), covariance.to("cpu", torch.float64)
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise ValueError("mean or covariance holds values that are not finite")
    return mean, (covariance + covariance.T) / 2


def _mean_and_factor(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and F with F^T F = covariance; F has min(n, d) rows."""
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features must be (n >= 2, d), got shape {tuple(features.shape)}")
    x = features.to("cpu", torch.float64)
    if not x.isfinite().all():
        raise ValueError("features hold values that are not finite")
    mean = x.mean(0)
    factor = (x - mean) / (len(x) - 1) ** 0.5
    if len(x) > x.shape[1]:
        # only the factor's singular values are used, which do not depend on Q
        with one_thread():
            factor = torch.linalg.qr(factor, mode="r").R
    return mean, factor
