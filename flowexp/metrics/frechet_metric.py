"""The Frechet distance of generated samples to a reference set as a metric: FID and its kin."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from flowexp.errors import UsageError
from flowexp.metrics.base import Accumulator, Extractor, SampleSet
from flowexp.metrics.feature_metric import ExtractorMetric
from flowexp.metrics.frechet import FrechetReference
from flowexp.metrics.moments import Moments
from flowexp.metrics.protocol import MetricRecord
from flowexp.metrics.reference_statistics import ReferenceStatistics
from flowexp.metrics.sample_metric import Records
from flowexp.metrics.statistics_cache import cached

_LOG = logging.getLogger(__name__)


class FrechetDistance(ExtractorMetric):
    """Frechet distance of features to a reference set; FID when the features are Inception's.

    Args:
        extractor: Feature extractor; loaded in ``prepare``.
        name: Stem of the metric's key. A name with ``fid`` in it is refused for any other features
            than Inception's.
        reference_statistics: Published statistics that take the place of the reference set: an npz
            file with ``mu`` (d,) and ``sigma`` (d, d), as EDM's.
        reference_extractor: Full name of the features that file was made of.
        reference_resize: Resize that file was made with; statistics of one resize group against
            features of another are no FID at all.

    Raises:
        ValueError: If ``name`` claims FID wrongly.
    """

    def __init__(
        self,
        extractor: Extractor,
        *,
        name: str,
        reference_statistics: Path | str | None = None,
        reference_extractor: str | None = None,
        reference_resize: str | None = None,
    ) -> None:
        super().__init__(extractor, name=name)
        self.statistics = (
            None
            if reference_statistics is None
            else ReferenceStatistics(
                Path(reference_statistics).expanduser(),
                extractor=reference_extractor,
                resize=reference_resize,
                key=f"metric.{name}",
            )
        )
        self._reference: FrechetReference | None = None

    def check(self) -> None:
        if self.statistics is not None:
            self.statistics.check(self.extractor)
        super().check()

    def set_reference(self, reference: SampleSet) -> None:
        if self.statistics is None:
            self._reference = _reference_of(self.moments_of(reference))
            return
        self._reference = self.statistics.read(self.extractor)
        self._protocol = replace(
            self.protocol,
            reference=self.statistics.file.name,
            reference_fingerprint=f"sha256 {self.statistics.sha256}",
            reference_split=None,
            n_ref=None,
        )

    @property
    def reference(self) -> FrechetReference:
        """The prepared reference.

        Raises:
            RuntimeError: Before ``prepare``.
        """
        return self.prepared(self._reference)

    def accumulator(self) -> "FrechetAccumulator":
        _ = self.reference
        return FrechetAccumulator(self)

    def of_real(self, samples: SampleSet) -> Records:
        return self.measure(self.moments_of(samples))

    def measure(self, moments: Moments) -> Records:
        """The distance of a set of samples; nan if a sample was not finite."""
        if not moments.mean.isfinite().all():
            value = math.nan
        elif moments.features is not None:
            value = self.reference.distance_to_features(moments.features)
        else:
            value = self.reference.distance_to_moments(moments.mean, moments.covariance)
        return (self.record("FD", value, count=moments.count),)

    def moments_of(self, samples: SampleSet) -> Moments:
        """Moments of the features of a whole set, from the cache if they are there."""

        def compute() -> Moments:
            moments = Moments()
            for batch in self.features_of(samples):
                moments.update(batch)
            return moments

        return cached(
            compute,
            pack=Moments.state,
            unpack=Moments.from_state,
            samples=samples,
            extractor=self.extractor,
            cache_dir=self.cache_dir,
        )


class FrechetAccumulator(Accumulator):
    """Moments of the generated samples' features.

    Args:
        metric: The prepared metric that owns the reference.
    """

    def __init__(self, metric: FrechetDistance) -> None:
        self._metric = metric
        self.moments = Moments()

    def update(self, *images: Tensor) -> None:
        self.moments.update(self._metric.extractor(images[0]))

    def merge(self, other: "FrechetAccumulator") -> None:
        self.moments.merge(other.moments)

    def state(self) -> dict[str, Tensor]:
        return self.moments.state()

    def load(self, state: dict[str, Tensor]) -> None:
        self.moments = Moments.from_state(state)

    def compute(self) -> tuple[MetricRecord, ...]:
        moments = self.moments
        self._metric.refuse_few(moments.count)
        records = self._metric.measure(moments)
        return records if moments.mean.isfinite().all() else self._metric.not_finite(records)


def first_available(candidates: Sequence[FrechetDistance]) -> FrechetDistance:
    """The first metric whose weights are on this computer; logs which and why.

    Args:
        candidates: In order of preference.

    Raises:
        UsageError: If none is available; the last one's reason.
        ValueError: If there are no candidates.
    """
    reason: UsageError | None = None
    for metric in candidates:
        try:
            metric.check()
        except UsageError as error:
            reason = error
            continue
        why = "its weights were found" if reason is None else reason.problem
        _LOG.info("metric %s, FD on %s: %s", metric.name, metric.extractor.name, why)
        return metric
    raise reason or ValueError("candidates must name at least one metric")


def _reference_of(moments: Moments) -> FrechetReference:
    if moments.features is not None:
        return FrechetReference.from_features(moments.features)
    return FrechetReference.from_moments(moments.mean, moments.covariance, count=moments.count)
