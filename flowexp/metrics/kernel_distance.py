"""Kernel distances: squared maximum mean discrepancy of two feature sets, and KID and CMMD by it.

    MMD^2 = mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j)

It is unbiased, hence may be negative.

Source: Binkowski et al. 2018, arXiv 1801.01401. Defaults and the order of draws follow
torch-fidelity.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flowexp.metrics.base import Extractor, Records
from flowexp.metrics.distances import squared_distances
from flowexp.metrics.feature_metric import FeatureMetric
from flowexp.progress import track

Kernel = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PolynomialKernel:
    """k(a, b) = (gamma a . b + coef0)^degree; gamma None is 1 / d."""

    degree: int = 3
    gamma: float | None = None
    coef0: float = 1.0

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Kernel matrix, (n, d) and (m, d) -> (n, m)."""
        gamma = 1 / a.shape[1] if self.gamma is None else self.gamma
        return (gamma * (a @ b.T) + self.coef0) ** self.degree


@dataclass(frozen=True)
class GaussianKernel:
    """k(a, b) = exp(-|a - b|^2 / (2 sigma^2)), sigma > 0."""

    sigma: float = 10.0

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Kernel matrix, (n, d) and (m, d) -> (n, m)."""
        return torch.exp(-squared_distances(a, b) / (2 * self.sigma**2))


def mmd2_unbiased(
    a: Tensor, b: Tensor, *, kernel: Kernel | None = None, chunk: int = 1024
) -> float:
    """Unbiased MMD^2 of features, (n >= 2, d) and (m >= 2, d): U-statistics within, all across.

    None is KID's cubic kernel; ``chunk`` rows of the kernel matrix are held at a time.
    """
    kernel = kernel or PolynomialKernel()
    a, b = _two_sets(a, b)
    within = _within(a, kernel, chunk) + _within(b, kernel, chunk)
    return within - 2 * _mean(a, b, kernel, chunk)


def mmd2_biased(a: Tensor, b: Tensor, *, kernel: Kernel | None = None, chunk: int = 1024) -> float:
    """MMD^2 with all pairs within as well, the samples with themselves included; >= 0.

    Source: Gretton et al. 2012, "A kernel two-sample test", eq. 5.
    """
    kernel = kernel or PolynomialKernel()
    a, b = _two_sets(a, b)
    within = _mean(a, a, kernel, chunk) + _mean(b, b, kernel, chunk)
    return within - 2 * _mean(a, b, kernel, chunk)


def _two_sets(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"a and b must be (>= 2, d), got {tuple(a.shape)} and {tuple(b.shape)}")
    return a.double(), b.double()


def _mean(a: Tensor, b: Tensor, kernel: Kernel, chunk: int) -> float:
    starts = track(range(0, len(a), chunk), "kernel of", unit="blocks of samples")
    total = math.fsum(float(kernel(a[start : start + chunk], b).sum()) for start in starts)
    return total / (len(a) * len(b))


def _within(x: Tensor, kernel: Kernel, chunk: int) -> float:
    total = 0.0
    for start in track(range(0, len(x), chunk), "kernel of", unit="blocks of samples"):
        block = kernel(x[start : start + chunk], x)
        total += float(block.sum() - block.diagonal(offset=start).sum())
    return total / (len(x) * (len(x) - 1))


def subset_draws(
    n: int, m: int, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[Tensor, Tensor]:
    """Indices into sets of n and of m, each (subsets, subset_size) int64, as torch-fidelity draws.

    They are drawn without replacement, the first set's before the second's in each round.

    Raises:
        ValueError: If ``subset_size`` is below 2 or exceeds a set.
    """
    if not 2 <= subset_size <= min(n, m):
        raise ValueError(f"subset_size must be in 2..{min(n, m)}, got {subset_size}")
    # the published protocol uses this legacy generator
    rng = np.random.RandomState(seed)
    rounds = [
        [rng.choice(size, subset_size, replace=False) for size in (n, m)] for _ in range(subsets)
    ]
    of_a, of_b = (torch.from_numpy(np.stack(draws)) for draws in zip(*rounds, strict=True))
    return of_a, of_b


def kernel_distance(
    a: Tensor, b: Tensor, *, draws: tuple[Tensor, Tensor], kernel: Kernel | None = None
) -> Tensor:
    """MMD^2, (subsets,) float64, of subsets of features (n, d) and (m, d), by ``subset_draws``.

    KID is their mean for Inception's pool3 and the cubic kernel, which None stands for.
    """
    pairs = zip(draws[0].long(), draws[1].long(), strict=True)
    rounds = track(pairs, "kernel distances of", unit="subsets", total=len(draws[0]))
    values = [mmd2_unbiased(a[i], b[j], kernel=kernel) for i, j in rounds]
    return torch.tensor(values, dtype=torch.float64)


class KernelDistance(FeatureMetric):
    """Unbiased MMD^2 with the cubic kernel (a . b / d + 1)^3, mean over random subsets.

    KID when the features are Inception's pool3. Every record carries the spread over the subsets as
    ``extra["std"]`` and, with ``full_set``, the U-statistic over all samples as
    ``extra["full_set"]``, the estimator of least variance.

    Args:
        name: Stem of the metric's key; ``kid`` only on Inception's features.
        subsets: Number of subsets, >= 1.
        subset_size: Samples per subset and side, >= 2; neither set may be smaller.
        seed: Seed of the subsets' draws.
        full_set: Whether to compute the U-statistic over all samples as well; its cost grows with
            the square of the counts (50k against 50k, d = 2048: 3e13 operations in float64).

    Raises:
        ValueError: If a number is impossible.

    Source: Binkowski et al. 2018, arXiv 1801.01401; defaults as in torch-fidelity.
    """

    def __init__(
        self,
        extractor: Extractor,
        *,
        name: str,
        subsets: int = 100,
        subset_size: int = 1000,
        seed: int = 2020,
        full_set: bool = True,
    ) -> None:
        super().__init__(extractor, name=name)
        if subsets < 1 or subset_size < 2:
            raise ValueError(
                f"subsets={subsets}, subset_size={subset_size}; allowed: >= 1 and >= 2"
            )
        self.subsets = subsets
        self.subset_size = self.minimum_samples = subset_size
        self.seed = seed
        self.full_set = full_set
        self.settings = f"{subsets} subsets of {subset_size}, seed {seed}"

    def measure(self, rows: Tensor) -> Records:
        draws = subset_draws(
            len(rows),
            len(self.reference),
            subsets=self.subsets,
            subset_size=self.subset_size,
            seed=self.seed,
        )
        of_rows, of_reference = (indices.to(self.device) for indices in draws)
        values = kernel_distance(rows, self.reference, draws=(of_rows, of_reference))
        extra = {"std": float(values.std(correction=0))}
        if self.full_set:
            extra["full_set"] = mmd2_unbiased(rows, self.reference)
        return (self.record("KID", float(values.mean()), count=len(rows), extra=extra),)


class GaussianMMD(FeatureMetric):
    """scale * MMD^2 with the Gaussian kernel, all pairs (the biased estimator): CMMD.

    CMMD is this on the unit-length image embeddings of CLIP ViT-L/14 at 336.

    Args:
        sigma: Width of the kernel, > 0.
        scale: Factor of the result.

    Raises:
        ValueError: If ``sigma`` is not positive.

    Source: Jayasumana et al. 2024, arXiv 2401.09603; estimator, width and factor as in the authors'
    code.
    """

    def __init__(
        self, extractor: Extractor, *, name: str, sigma: float = 10.0, scale: float = 1000.0
    ) -> None:
        super().__init__(extractor, name=name)
        if sigma <= 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        self.sigma = sigma
        if not scale > 0.0:
            raise ValueError(f"scale is {scale}; expected a positive number")
        self.scale = scale
        self.settings = f"Gaussian kernel, sigma {sigma:g}, times {scale:g}"

    def measure(self, rows: Tensor) -> Records:
        mmd2 = mmd2_biased(rows, self.reference, kernel=GaussianKernel(sigma=self.sigma))
        return (self.record("MMD", self.scale * mmd2, count=len(rows)),)
