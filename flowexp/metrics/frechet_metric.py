"""The Frechet distance of generated samples to a reference set as a metric: FID and its kin."""

import logging
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.files import expanded, file_sha256
from flowexp.metrics.base import Accumulator, Extractor, Records, SampleSet
from flowexp.metrics.feature_metric import ExtractorMetric
from flowexp.metrics.frechet import FeatureMoments, FrechetReference
from flowexp.metrics.protocol import INCEPTION_SPATIAL

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class StatisticsFile:
    """An npz file with ``mu``, (d,), and ``sigma``, (d, d), in place of the reference set itself.

    ADM's files hold those of the spatial features beside them, as ``mu_s`` and ``sigma_s``.

    Such files carry no protocol, so extractor and resize are declared below the metric's config key
    and compared with the metric's: statistics of one resize with features of another give a
    plausible, wrong number.
    """

    file: Path
    extractor: str | None
    resize: str | None
    key: str

    def read(self, extractor: Extractor) -> tuple[Tensor, Tensor]:
        """Mean and covariance, float64, to compare with the extractor's features.

        Raises:
            UsageError: The file is missing, damaged, or of another protocol.
        """
        for part, actual in (("extractor", extractor.name), ("resize", extractor.resize)):
            declared = getattr(self, part)
            if declared != actual:
                found = "is not declared" if declared is None else f"is {declared!r}"
                raise UsageError(
                    f"the {part} of {self.file} {found}, but this metric's is {actual!r}.",
                    key=f"{self.key}.reference_{part}",
                    remedy="Statistics of another protocol cannot be compared with; if the file is "
                    "of this one, declare it here.",
                )
        if not self.file.is_file():
            raise self._wrong(f"{self.file} does not exist.")
        try:
            with self.file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                end = "_s" if extractor.name == INCEPTION_SPATIAL and "mu_s" in stored else ""
                mean = torch.from_numpy(np.asarray(stored[f"mu{end}"], dtype=np.float64))
                covariance = torch.from_numpy(np.asarray(stored[f"sigma{end}"], dtype=np.float64))
        except (OSError, KeyError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise self._wrong(f"{self.file} holds no mu and sigma ({error}).") from error
        dim = len(mean) if extractor.dim is None else extractor.dim
        if mean.shape != (dim,) or covariance.shape != (dim, dim):
            raise self._wrong(
                f"{self.file} holds mu {tuple(mean.shape)} and sigma {tuple(covariance.shape)}, "
                f"but {extractor.name} has {dim} features."
            )
        if not (mean.isfinite().all() and covariance.isfinite().all()):
            raise self._wrong(f"{self.file} holds values that are not finite.")
        return mean, covariance

    def _wrong(self, problem: str) -> UsageError:
        return UsageError(
            problem,
            key=f"{self.key}.reference_statistics",
            remedy="Give an npz with mu and sigma of these features, or null for the data set's.",
        )


class FrechetDistance(ExtractorMetric):
    """Frechet distance of features to a reference set; FID when the features are Inception's.

    Args:
        name: Stem of the metric's key. A name with ``fid`` in it is refused for any other features
            than Inception's.
        reference_statistics: Published statistics that take the place of the reference set: an npz
            file with ``mu`` (d,) and ``sigma`` (d, d), as EDM's.
        reference_extractor: Full name of the features that file was made of.
        reference_resize: Resize that file was made with.
    """

    zero = "features with the same mean and covariance as the reference"

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
        self.statistics: StatisticsFile | None = None
        if reference_statistics is not None:
            self.statistics = StatisticsFile(
                expanded(reference_statistics),
                extractor=reference_extractor,
                resize=reference_resize,
                key=f"metric.{name}",
            )
        self._reference: FrechetReference | None = None

    def check(self) -> None:
        if self.statistics is not None:
            self.statistics.read(self.extractor)
        super().check()

    def set_reference(self, reference: SampleSet) -> None:
        if self.statistics is None:
            self._reference = FrechetReference.of(self.moments_of(reference))
            return
        self._reference = FrechetReference.from_moments(*self.statistics.read(self.extractor))
        self._protocol = replace(
            self.protocol,
            reference=self.statistics.file.name,
            reference_fingerprint=f"sha256 {file_sha256(self.statistics.file)}",
            reference_split=None,
            n_ref=None,
        )

    def remark(self, *, count: int) -> str | None:
        features, images = len(self.reference.mean), self.protocol.n_ref
        few = [
            f"{number:,} {what}"
            for number, what in ((images, "reference images"), (count, "samples"))
            if number is not None and number <= features
        ]
        if not few:
            return None
        size = min(count, images or count)
        return (
            f"{self.name} has {features:,} features, and {' and '.join(few)} do not determine "
            "their covariance: the score is only comparable with scores on the same images with "
            "the same number of samples. A kernel distance is better: metric=kid_efflite0 "
            f"metric.kid_efflite0.subset_size={size}"
        )

    @property
    def reference(self) -> FrechetReference:
        """The prepared reference; raises ``RuntimeError`` before ``prepare``."""
        return self.prepared(self._reference)

    def accumulator(self) -> "FrechetAccumulator":
        _ = self.reference
        return FrechetAccumulator(self)

    def of_real(self, samples: SampleSet) -> Records:
        return self.measure(self.moments_of(samples))

    def measure(self, moments: FeatureMoments) -> Records:
        """The distance of a set of samples; nan if their moments are not finite."""
        for what, values in (("mean", moments.mean), ("covariance", moments.covariance)):
            if not values.isfinite().all():
                unknown = self.record("FD", math.nan, count=moments.count)
                reason = f"the {what} of the features is not finite"
                return self.not_a_number((unknown,), reason=reason)
        return (self.record("FD", self.reference.distance_to(moments), count=moments.count),)

    def moments_of(self, samples: SampleSet) -> FeatureMoments:
        """Moments of the features of a whole set, from the cache if they are there."""

        def compute() -> dict[str, Tensor]:
            moments = FeatureMoments()
            for batch in self.features_of(samples):
                moments.update(batch)
            return moments.state()

        return self.cached(compute, samples, read=FeatureMoments.from_state)


class FrechetAccumulator(Accumulator):
    """Moments of the generated samples' features."""

    def __init__(self, metric: FrechetDistance) -> None:
        self._metric = metric
        self.moments = FeatureMoments()

    def update(self, *images: Tensor) -> None:
        self.moments.update(self._metric.extractor(images[0]))

    def merge(self, other: "FrechetAccumulator") -> None:
        self.moments.merge(other.moments)

    def state(self) -> dict[str, Tensor]:
        return self.moments.state()

    def load(self, state: dict[str, Tensor]) -> None:
        self.moments = FeatureMoments.from_state(state)

    def compute(self) -> Records:
        self._metric.refuse_few(self.moments.count)
        return self._metric.measure(self.moments)


def first_available(candidates: Sequence[FrechetDistance]) -> FrechetDistance:
    """The first metric, in order of preference, whose weights are on this computer; logs why.

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
