"""Kernel distances of samples to a reference set as metrics: KID and CMMD."""

from torch import Tensor

from flowexp.metrics.base import Extractor
from flowexp.metrics.feature_metric import FeatureMetric, Measured
from flowexp.metrics.kid import (
    GaussianKernel,
    kernel_distance,
    mmd2_biased,
    mmd2_unbiased,
    subset_draws,
)


class KernelDistanceMetric(FeatureMetric):
    """Unbiased MMD^2 with the cubic kernel (a . b / d + 1)^3, mean over random subsets.

    KID when the features are Inception's pool3. Every record carries the spread over the subsets as
    ``extra["std"]`` and, if asked for, the U-statistic over all samples as ``extra["full_set"]``,
    the estimator of least variance.

    Args:
        extractor: Feature extractor.
        name: Stem of the metric's key; ``kid`` only on Inception's features.
        subsets: Number of subsets.
        subset_size: Samples per subset and side; neither set may be smaller.
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
        self.subset_size = subset_size
        self.seed = seed
        self.full_set = full_set

    @property
    def settings(self) -> str:
        """For example ``100 subsets of 1000, seed 2020``."""
        return f"{self.subsets} subsets of {self.subset_size}, seed {self.seed}"

    @property
    def minimum_samples(self) -> int:
        """The size of a subset."""
        return self.subset_size

    def measure(self, rows: Tensor) -> tuple[Measured, ...]:
        """The mean over the subsets."""
        reference = self.reference
        draws = subset_draws(
            len(rows),
            len(reference),
            subsets=self.subsets,
            subset_size=self.subset_size,
            seed=self.seed,
        )
        on_device = draws[0].to(self.device), draws[1].to(self.device)
        distance = kernel_distance(rows, reference, draws=on_device)
        extra = {"std": distance.std}
        if self.full_set:
            extra["full_set"] = mmd2_unbiased(rows, reference)
        return (Measured(name=self.name, metric="KID", value=distance.mean, extra=extra),)


class GaussianMMD(FeatureMetric):
    """scale * MMD^2 with the Gaussian kernel, all pairs (the biased estimator): CMMD.

    CMMD is this on the unit-length image embeddings of CLIP ViT-L/14 at 336.

    Args:
        extractor: Feature extractor.
        name: Stem of the metric's key.
        sigma: Width of the kernel exp(-|a - b|^2 / (2 sigma^2)), > 0.
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
        self.scale = scale

    @property
    def settings(self) -> str:
        """For example ``Gaussian kernel, sigma 10, times 1000``."""
        return f"Gaussian kernel, sigma {self.sigma:g}, times {self.scale:g}"

    def measure(self, rows: Tensor) -> tuple[Measured, ...]:
        """The one number."""
        mmd2 = mmd2_biased(rows, self.reference, kernel=GaussianKernel(sigma=self.sigma))
        return (Measured(name=self.name, metric="MMD", value=self.scale * mmd2),)
