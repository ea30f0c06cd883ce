"""Metrics of the features of samples."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from flowexp.metrics.base import Extractor, SampleSet
from flowexp.metrics.protocol import refuse_borrowed_name
from flowexp.metrics.sample_metric import Records, RowMetric, SampleMetric
from flowexp.metrics.statistics_cache import cached
from flowexp.metrics.weight_files import check_with_key
from flowexp.requirements import Parts, Unmet, of_pictures

_LOG = logging.getLogger(__name__)


class ExtractorMetric(SampleMetric):
    """A metric that compares features of the samples.

    Args:
        extractor: Feature extractor; loaded in ``prepare``.
        name: Stem of the metric's key.

    Raises:
        ValueError: If ``name`` stands for a published protocol that this is not.
    """

    minimum_samples = 2
    needs_reference: bool = True

    def __init__(self, extractor: Extractor, *, name: str) -> None:
        refuse_borrowed_name(name, extractor=extractor.name)
        super().__init__(name=name)
        self.extractor = extractor

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Pictures, unless the features are defined for points."""
        if not self.extractor.on_points:
            yield from of_pictures(parts, name=self.name, remedy="Use metric=fd_raw.")

    def check(self) -> None:
        check_with_key(self.extractor.check, key=f"metric.{self.name}.extractor.weights")

    def described(self, reference: SampleSet) -> dict[str, Any]:
        self.extractor.load(device=self.device)
        return {
            "metric": "",
            "extractor": self.extractor.name,
            "weights_sha256": self.extractor.weights_sha256,
            "resize": self.extractor.resize,
            "quantization": self.extractor.quantization,
            "n_ref": len(reference.images),
        }

    def features_of(self, samples: SampleSet) -> Iterator[Tensor]:
        """Features of a whole set, one batch (b, d) at a time."""
        start = time.perf_counter()
        yield from map(self.extractor, self.batches(samples))
        took = time.perf_counter() - start
        _LOG.info("%s features of %s: %.1f s", self.extractor.name, samples.name, took)


class FeatureMetric(ExtractorMetric, RowMetric):
    """A metric of all features of the samples, and mostly of the reference's.

    Args:
        extractor: Feature extractor; loaded in ``prepare``.
        name: Stem of the metric's key.
    """

    _reference: Tensor | None = None

    def set_reference(self, reference: SampleSet) -> None:
        self._reference = self.all_features(reference) if self.needs_reference else None

    @property
    def reference(self) -> Tensor:
        """Features of the reference, (N, d) float32, on the metric's device.

        Raises:
            RuntimeError: Before ``prepare``.
        """
        return self.prepared(self._reference).to(self.device)

    def rows(self, *images: Tensor) -> Tensor:
        """The features, (B, d) float32."""
        return self.extractor(images[0]).float()

    def of_real(self, samples: SampleSet) -> Records:
        return self.measure(self.all_features(samples).to(self.device))

    def all_features(self, samples: SampleSet) -> Tensor:
        """Features of a whole set, (N, d) float32 on the CPU, from the cache if they are there."""
        return cached(
            lambda: torch.cat([batch.cpu() for batch in self.features_of(samples)]).float(),
            pack=lambda features: {"features": features},
            unpack=lambda state: state["features"],
            samples=samples,
            extractor=self.extractor,
            cache_dir=self.cache_dir,
            content="features",
        )
