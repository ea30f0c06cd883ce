"""Distances between a reference set and generated samples, with their protocol and their floor."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.metrics.base import Extractor, SampleSet
from flowexp.metrics.frechet import FrechetReference
from flowexp.metrics.moments import Moments
from flowexp.metrics.protocol import MetricRecord, Protocol, refuse_borrowed_name
from flowexp.metrics.reference_statistics import ReferenceStatistics
from flowexp.metrics.statistics_cache import cached_moments
from flowexp.metrics.weight_files import check_with_key
from flowexp.requirements import Part, Parts, Unmet, of_pictures

_LOG = logging.getLogger(__name__)


def moments_of(images: npt.NDArray[Any], extractor: Extractor, *, batch_size: int = 256) -> Moments:
    """Moments of the features of a whole set.

    Args:
        images: (N, C, H, W) uint8 or (N, D) float32, may be memory-mapped.
        extractor: Feature extractor, loaded where it should run.
        batch_size: Samples per call.
    """
    moments = Moments()
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    for start in range(0, len(images), batch_size):
        # a copy, since torch warns about memory it may not write to
        batch = np.array(images[start : start + batch_size])
        moments.update(extractor(torch.from_numpy(batch)))
    return moments


class FrechetDistance(Part):
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

    Attributes:
        minimum_samples: Fewest generated samples that have a value.
        paired: Whether samples are compared with targets of their own: no.

    Raises:
        ValueError: If ``name`` claims FID wrongly.
    """

    minimum_samples = 2
    paired = False

    def __init__(
        self,
        extractor: Extractor,
        *,
        name: str,
        reference_statistics: Path | str | None = None,
        reference_extractor: str | None = None,
        reference_resize: str | None = None,
    ) -> None:
        refuse_borrowed_name(name, extractor=extractor.name)
        self.name = name
        self.extractor = extractor
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
        self._protocol: Protocol | None = None
        self._floor: dict[str, float] = {}
        self._cache_dir: Path | None = None
        self._batch_size = 256

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Pictures, unless the features are defined for points."""
        if not self.extractor.on_points:
            yield from of_pictures(parts, name=self.name, remedy="Use metric=fd_raw.")

    def check(self) -> None:
        """Raise ``UsageError`` when weights or statistics are missing or do not fit."""
        if self.statistics is not None:
            self.statistics.check(self.extractor)
        check_with_key(self.extractor.check, key=f"metric.{self.name}.extractor.weights")

    def prepare(
        self,
        reference: SampleSet,
        *,
        cache_dir: Path | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 256,
    ) -> None:
        """Compute the reference statistics, or read them from the cache or the published file.

        Args:
            reference: The real samples.
            cache_dir: Folder of cached statistics; None computes them anew.
            device: Where the extractor runs.
            batch_size: Samples per call of the extractor.

        Raises:
            UsageError: If weights are missing, a cache file is of another protocol, or published
                statistics do not fit.
        """
        self.extractor.load(device=device)
        self._cache_dir, self._batch_size, self._floor = cache_dir, batch_size, {}
        protocol = Protocol.against(
            reference,
            metric="FD",
            extractor=self.extractor.name,
            weights_sha256=self.extractor.weights_sha256,
            resize=self.extractor.resize,
            quantization=self.extractor.quantization,
            n_ref=len(reference.images),
        )
        if self.statistics is None:
            self._reference, self._protocol = _reference_of(self._moments(reference)), protocol
            return
        self._reference = self.statistics.read(self.extractor)
        self._protocol = replace(
            protocol,
            reference=self.statistics.file.name,
            reference_fingerprint=f"sha256 {self.statistics.sha256}",
            reference_split=None,
            n_ref=None,
        )

    def floor(self, heldout: SampleSet) -> float:
        """The same distance for real held-out samples, at their own count.

        Afterwards every record carries it as ``extra["floor"]`` and ``extra["floor_count"]``.

        Args:
            heldout: Real samples that are not in the reference.
        """
        moments = self._moments(heldout)
        value = _distance(self.reference, moments)
        self._floor = {"floor": value, "floor_count": moments.count}
        return value

    @property
    def reference(self) -> FrechetReference:
        """The prepared reference.

        Raises:
            RuntimeError: Before ``prepare``.
        """
        if self._reference is None:
            raise RuntimeError(f"metric {self.name}: prepare() has not been called")
        return self._reference

    @property
    def protocol(self) -> Protocol:
        """The metric's side of the protocol, with ``n_gen`` 0."""
        if self._protocol is None:
            raise RuntimeError(f"metric {self.name}: prepare() has not been called")
        return self._protocol

    @property
    def extra(self) -> dict[str, float]:
        """What is shown beside the value: the floor, once known."""
        return dict(self._floor)

    def accumulator(self) -> "FrechetAccumulator":
        """A fresh accumulator against the prepared reference."""
        _ = self.reference
        return FrechetAccumulator(self)

    def _moments(self, samples: SampleSet) -> Moments:
        def compute() -> Moments:
            start = time.perf_counter()
            moments = moments_of(samples.images, self.extractor, batch_size=self._batch_size)
            took = time.perf_counter() - start
            _LOG.info(
                "%s statistics of %d %s samples: %.1f s",
                self.extractor.name,
                moments.count,
                samples.name,
                took,
            )
            return moments

        return cached_moments(
            compute, samples=samples, extractor=self.extractor, cache_dir=self._cache_dir
        )


class FrechetAccumulator:
    """Moments of the generated samples' features.

    Args:
        metric: The prepared metric that owns the reference.
    """

    def __init__(self, metric: FrechetDistance) -> None:
        self._metric = metric
        self.moments = Moments()

    def update(self, images: Tensor) -> None:
        """Add a batch, (B, C, H, W) uint8 or (B, D) float32."""
        self.moments.update(self._metric.extractor(images))

    def merge(self, other: "FrechetAccumulator") -> None:
        """Add what another rank has seen."""
        self.moments.merge(other.moments)

    def state(self) -> dict[str, Tensor]:
        """The moments as plain CPU tensors."""
        return self.moments.state()

    def load(self, state: dict[str, Tensor]) -> None:
        """Replace the moments by stored ones."""
        self.moments = Moments.from_state(state)

    def compute(self) -> tuple[MetricRecord, ...]:
        """The distance so far; nan when a sample was not finite.

        Raises:
            UsageError: With fewer than 2 samples.
        """
        if self.moments.count < self._metric.minimum_samples:
            raise UsageError(
                f"a distance needs at least 2 samples, got {self.moments.count}.",
                key=f"metric.{self._metric.name}",
                remedy="Generate more samples.",
            )
        protocol = replace(self._metric.protocol, n_gen=self.moments.count)
        if self.moments.mean.isfinite().all():
            value = _distance(self._metric.reference, self.moments)
        else:
            _LOG.warning("%s: some samples are not finite, the value is nan", protocol.title)
            value = float("nan")
        record = MetricRecord(
            name=self._metric.name, value=value, protocol=protocol, extra=self._metric.extra
        )
        return (record,)


def first_available(candidates: Sequence[FrechetDistance]) -> FrechetDistance:
    """The first metric whose weights are on this computer; one logged line says which and why.

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


def _distance(reference: FrechetReference, moments: Moments) -> float:
    if moments.features is not None:
        return reference.distance_to_features(moments.features)
    return reference.distance_to_moments(moments.mean, moments.covariance)
