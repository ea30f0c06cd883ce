"""Precision and recall of samples by k-nearest-neighbour balls, and density and coverage.

A ball around each sample reaches to its k-th neighbour in its own set, itself not counted.

Source: Kynkaanniemi et al. 2019, arXiv 1904.06991 (balls closed, k = 3, as in torch-fidelity);
Naeem et al. 2020, arXiv 2002.09797 (balls open, k = 5, as in prdc).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from flowexp.metrics.base import Extractor, Records
from flowexp.metrics.distances import distance_rows
from flowexp.metrics.feature_metric import FeatureMetric

_STEM = "precision_recall"


def improved_precision_recall(generated: Tensor, real: Tensor, *, k: int = 3) -> dict[str, float]:
    """Improved precision and recall of features, (n, d) and (m, d): distance <= radius.

    Precision is the share of generated samples inside a real ball, recall that of real ones inside
    a generated ball, and ``f_score`` their harmonic mean, 0 where both are 0. A set without a k-th
    neighbour raises ``ValueError``.
    """
    generated, real = generated.double(), real.double()
    real_radii, generated_radii = _radii(real, k), _radii(generated, k)
    inside_real = [(d <= real_radii).any(1) for _, d in distance_rows(generated, real)]
    inside_generated = [(d <= generated_radii).any(1) for _, d in distance_rows(real, generated)]
    precision, recall = _share(inside_real), _share(inside_generated)
    f_score = 2 * precision * recall / max(1e-5, precision + recall)
    return {"precision": precision, "recall": recall, "f_score": f_score}


def density_coverage(generated: Tensor, real: Tensor, *, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage, with open balls: distance < radius.

    Density is the mean number of real balls around a generated sample over k (may exceed 1);
    coverage the share of real balls that hold a generated sample.
    """
    generated, real = generated.double(), real.double()
    real_radii, generated_radii = _radii(real, k), _radii(generated, k)
    balls = torch.cat([(d < real_radii).sum(1) for _, d in distance_rows(generated, real)])
    recalled, covered = [], []
    for start, d in distance_rows(real, generated):
        recalled.append((d < generated_radii).any(1))
        covered.append(d.amin(1) < real_radii[start : start + len(d)])
    return {
        "precision": float((balls > 0).double().mean()),
        "recall": _share(recalled),
        "density": float(balls.double().mean()) / k,
        "coverage": _share(covered),
    }


def _radii(x: Tensor, k: int) -> Tensor:
    if not 1 <= k < len(x):
        raise ValueError(f"k must be in 1..{len(x) - 1}, got {k}")
    return torch.cat([d.kthvalue(k + 1, dim=1).values for _, d in distance_rows(x, x)])


def _share(flags: list[Tensor]) -> float:
    return float(torch.cat(flags).double().mean())


class PrecisionRecall(FeatureMetric):
    """Shares of samples inside the other set's k-nearest-neighbour balls, one record each.

    The records of ``precision_recall_X`` are called ``precision_X`` and ``recall_X``, and, with
    ``density_k``, ``density_X`` and ``coverage_X``.

    Args:
        extractor: The paper takes VGG16's features, the ADM suite Inception's pool3.
        name: Stem of the metric's key, ``precision_recall`` or that and more.
        k: Neighbour that sets the radius of closed balls, >= 1.
        density_k: The same for density and coverage (5 is usual); None leaves them out.

    Raises:
        ValueError: If ``name``, ``k`` or ``density_k`` is impossible.
    """

    higher_is_better = True

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
        self.minimum_samples = max(k, density_k or 0) + 1
        both = "" if density_k is None else f", density and coverage k {density_k}"
        self.settings = f"k {k}{both}"

    def closed(self, rows: Tensor) -> Mapping[str, float]:
        """Precision and recall of the features of samples, (n, d), with closed balls."""
        return improved_precision_recall(rows, self.reference, k=self.k)

    def measure(self, rows: Tensor) -> Records:
        closed = self.closed(rows)
        found = [(what, self.k, closed[what]) for what in ("precision", "recall")]
        if self.density_k is not None:
            opened = density_coverage(rows, self.reference, k=self.density_k)
            found += [(what, self.density_k, opened[what]) for what in ("density", "coverage")]
        suffix = self.name.removeprefix(_STEM)
        return tuple(
            self.record(f"{what} (k={k})", value, count=len(rows), name=f"{what}{suffix}")
            for what, k, value in found
        )
