"""Precision and recall of samples by k-nearest-neighbour balls, and density and coverage.

A ball around each sample reaches to its k-th neighbour in its own set, itself not counted. Values
mean nothing without both sample counts, the features and k.

Source: Kynkaanniemi et al. 2019, arXiv 1904.06991 (balls closed, k = 3, as in torch-fidelity);
Naeem et al. 2020, arXiv 2002.09797 (balls open, k = 5, as in prdc).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.metrics.distances import distance_rows


@dataclass(frozen=True)
class PrecisionRecall:
    """Share of generated samples inside a real ball, share of reals inside a generated one."""

    precision: float
    recall: float

    @property
    def f_score(self) -> float:
        """Harmonic mean, 0 where both are 0."""
        return 2 * self.precision * self.recall / max(1e-5, self.precision + self.recall)


@dataclass(frozen=True)
class DensityCoverage:
    """Precision, recall, density and coverage with open balls."""

    precision: float
    recall: float
    density: float
    coverage: float


def improved_precision_recall(generated: Tensor, real: Tensor, *, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall: distance <= radius.

    Args:
        generated: (n, d) features, n > k.
        real: (m, d) features, m > k.
        k: Neighbour that sets the radius.

    Raises:
        ValueError: If a set has no k-th neighbour.
    """
    generated, real = generated.double(), real.double()
    real_radii, generated_radii = _radii(real, k), _radii(generated, k)
    inside_real = [(d <= real_radii).any(1) for _, d in distance_rows(generated, real)]
    inside_generated = [(d <= generated_radii).any(1) for _, d in distance_rows(real, generated)]
    return PrecisionRecall(precision=_share(inside_real), recall=_share(inside_generated))


def density_coverage(generated: Tensor, real: Tensor, *, k: int = 5) -> DensityCoverage:
    """Precision, recall, density and coverage: distance < radius.

    Density is the mean number of real balls around a generated sample over k (may exceed 1);
    coverage the share of real balls that hold a generated sample.

    Args:
        generated: (n, d) features, n > k.
        real: (m, d) features, m > k.
        k: Neighbour that sets the radius.

    Raises:
        ValueError: If a set has no k-th neighbour.
    """
    generated, real = generated.double(), real.double()
    real_radii, generated_radii = _radii(real, k), _radii(generated, k)
    balls = torch.cat([(d < real_radii).sum(1) for _, d in distance_rows(generated, real)])
    recalled, covered = [], []
    for start, d in distance_rows(real, generated):
        recalled.append((d < generated_radii).any(1))
        covered.append(d.amin(1) < real_radii[start : start + len(d)])
    return DensityCoverage(
        precision=float((balls > 0).double().mean()),
        recall=_share(recalled),
        density=float(balls.double().mean()) / k,
        coverage=_share(covered),
    )


def _radii(x: Tensor, k: int) -> Tensor:
    if not 1 <= k < len(x):
        raise ValueError(f"k must be in 1..{len(x) - 1}, got {k}")
    return torch.cat([d.kthvalue(k + 1, dim=1).values for _, d in distance_rows(x, x)])


def _share(flags: list[Tensor]) -> float:
    return float(torch.cat(flags).double().mean())
