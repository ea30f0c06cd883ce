"""Precision and recall, and density and coverage, as metrics."""

from torch import Tensor

from flowexp.metrics.base import Extractor
from flowexp.metrics.feature_metric import FeatureMetric, Measured
from flowexp.metrics.precision_recall import density_coverage, improved_precision_recall

_STEM = "precision_recall"


class PrecisionRecallMetric(FeatureMetric):
    """Shares of samples inside the other set's k-nearest-neighbour balls, one record each.

    The records of ``precision_recall_X`` are called ``precision_X`` and ``recall_X``, and, if asked
    for, ``density_X`` and ``coverage_X``.

    Args:
        extractor: Feature extractor; the numbers of different features are not comparable (the
            paper takes VGG16's, the ADM suite Inception's pool3).
        name: Stem of the metric's key, ``precision_recall`` or that and more.
        k: Neighbour that sets the radius of closed balls, >= 1.
        density_k: The same for density and coverage (5 is usual); None leaves them out.

    Raises:
        ValueError: If ``name``, ``k`` or ``density_k`` is impossible.

    Source: Kynkaanniemi et al. 2019, arXiv 1904.06991; Naeem et al. 2020, arXiv 2002.09797.
    """

    def __init__(
        self, extractor: Extractor, *, name: str, k: int = 3, density_k: int | None = None
    ) -> None:
        super().__init__(extractor, name=name)
        if not name.startswith(_STEM):
            raise ValueError(f"name must start with {_STEM}, got {name!r}")
        if k < 1 or (density_k is not None and density_k < 1):
            raise ValueError(f"k={k}, density_k={density_k}; allowed: >= 1 (density_k also None)")
        self.k = k
        self.density_k = density_k
        self._suffix = name.removeprefix(_STEM)

    @property
    def settings(self) -> str:
        """For example ``k 3, density and coverage k 5``."""
        both = "" if self.density_k is None else f", density and coverage k {self.density_k}"
        return f"k {self.k}{both}"

    @property
    def minimum_samples(self) -> int:
        """A k-th neighbour for every sample."""
        return max(self.k, self.density_k or 0) + 1

    def measure(self, rows: Tensor) -> tuple[Measured, ...]:
        """Precision, recall and what else was asked for."""
        reference = self.reference
        closed = improved_precision_recall(rows, reference, k=self.k)
        found = {"precision": (closed.precision, self.k), "recall": (closed.recall, self.k)}
        if self.density_k is not None:
            opened = density_coverage(rows, reference, k=self.density_k)
            found["density"] = opened.density, self.density_k
            found["coverage"] = opened.coverage, self.density_k
        return tuple(
            Measured(name=f"{what}{self._suffix}", metric=f"{what} (k={k})", value=value)
            for what, (value, k) in found.items()
        )
