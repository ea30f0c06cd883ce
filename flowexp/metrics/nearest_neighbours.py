"""Distance of samples to their nearest training images, which shows memorisation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.metrics.base import Extractor, Records, SampleSet
from flowexp.metrics.distances import nearest
from flowexp.metrics.feature_metric import FeatureMetric


@dataclass(frozen=True)
class Neighbours:
    """Each sample's nearest reference image: distance, (n,) float64, and position, (n,) int64."""

    distances: Tensor
    indices: Tensor

    def closest(self, count: int) -> Tensor:
        """Positions of the ``count`` samples nearest to a reference image, nearest first."""
        return self.distances.argsort(stable=True)[:count]


class NearestNeighbours(FeatureMetric):
    """Mean distance to the nearest reference image, over that of held-out images.

    Samples of a model that generalises are about as far away as real images that are not in the
    reference (1), copies are nearer (0); nan without a held-out set. ``extra`` has the two
    means, ``distance`` and ``heldout_distance``, and ``share_below``, the share of samples nearer
    than the ``percentile``-th percentile of the held-out distances, which is ``percentile`` / 100
    for a perfect model.

    Args:
        extractor: Features that are compared; :class:`RawValues` compares pixels.
        percentile: Of the held-out distances, in (0, 100).

    Raises:
        ValueError: If ``percentile`` is outside its range.
    """

    minimum_samples = 1
    higher_is_better = None

    def __init__(self, extractor: Extractor, *, name: str, percentile: float = 1.0) -> None:
        super().__init__(extractor, name=name)
        if not 0 < percentile < 100:
            raise ValueError(f"percentile must be in (0, 100), got {percentile}")
        self.percentile = percentile
        self.settings = f"share below percentile {percentile:g}"
        self.found: Neighbours | None = None
        self._heldout: Tensor | None = None

    def set_reference(self, reference: SampleSet) -> None:
        super().set_reference(reference)
        self._heldout = self.found = None

    def rows(self, *images: Tensor) -> Tensor:
        """Distance and index of each sample's nearest neighbour, (B, 2) float64."""
        return self._neighbours(super().rows(*images))

    def floor(self, heldout: SampleSet) -> float:
        """Keep the distances of held-out images, the unit of the value; their own ratio is 1."""
        _ = self.protocol
        self._heldout = self._neighbours(self.all_features(heldout).to(self.device))[:, 0]
        return 1.0

    def measure(self, rows: Tensor) -> Records:
        """The ratio; the neighbours themselves are kept in ``found``."""
        rows = rows.cpu()
        self.found = Neighbours(rows[:, 0], rows[:, 1].nan_to_num().long())
        distance = float(rows[:, 0].mean())
        ratio, extra = math.nan, {"distance": distance}
        if self._heldout is not None:
            heldout = float(self._heldout.mean())
            limit = self._heldout.quantile(self.percentile / 100)
            extra["heldout_distance"] = heldout
            extra["share_below"] = float((rows[:, 0] < limit).double().mean())
            ratio = distance / heldout if heldout > 0 else math.nan
        what = "nearest-neighbour distance ratio"
        return (self.record(what, ratio, count=len(rows), extra=extra),)

    def _neighbours(self, features: Tensor) -> Tensor:
        distances, indices = nearest(features, self.reference.to(features.device))
        return torch.stack([distances, indices.double()], 1).cpu()
