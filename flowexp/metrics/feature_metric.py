"""Metrics that need the features of every sample, not only their moments.

Features are kept in float32 and in the order of the samples: random subsets and splits are drawn by
position, so the value must not depend on how many processes shared the work. Evaluation hands
process r the batches r, r + world, r + 2 world, ...; merging undoes exactly that.
"""

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.metrics.base import Extractor, SampleSet
from flowexp.metrics.protocol import MetricRecord, Protocol, refuse_borrowed_name
from flowexp.metrics.statistics_cache import cached_features
from flowexp.metrics.weight_files import check_with_key
from flowexp.requirements import Part, Parts, Unmet, of_pictures

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One number before it gets its protocol.

    Args:
        name: Name of the record, for example ``recall``.
        metric: What is computed, as in :class:`Protocol`.
        value: The number.
        extra: What belongs beside it.
    """

    name: str
    metric: str
    value: float
    extra: Mapping[str, float] = field(default_factory=dict)


class FeatureMetric(Part, ABC):
    """A metric of all features of the samples, and mostly of the reference's.

    Args:
        extractor: Feature extractor; loaded in ``prepare``.
        name: Stem of the metric's key.

    Attributes:
        paired: Whether samples are compared with targets of their own: no.
        needs_reference: Whether features of the reference set are used.

    Raises:
        ValueError: If ``name`` stands for a published protocol that this is not.
    """

    paired = False
    needs_reference: bool = True

    def __init__(self, extractor: Extractor, *, name: str) -> None:
        refuse_borrowed_name(name, extractor=extractor.name)
        self.name = name
        self.extractor = extractor
        self.device = torch.device("cpu")
        self._batch_size = 256
        self._cache_dir: Path | None = None
        self._reference: Tensor | None = None
        self._protocol: Protocol | None = None
        self._floors: dict[str, dict[str, float]] = {}

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Pictures, unless the features are defined for points."""
        if not self.extractor.on_points:
            yield from of_pictures(parts, name=self.name, remedy="Use metric=fd_raw.")

    @property
    @abstractmethod
    def settings(self) -> str:
        """The numbers inside the metric, for the protocol."""

    @property
    def minimum_samples(self) -> int:
        """Fewest samples, generated or real, that have a value."""
        return 2

    @abstractmethod
    def measure(self, rows: Tensor) -> tuple[Measured, ...]:
        """The numbers of a set of samples.

        Args:
            rows: What ``rows`` gave, (n, d), n >= ``minimum_samples``, on the metric's device.
        """

    def rows(self, images: Tensor) -> Tensor:
        """What is kept of a batch: the features, (B, d) float32.

        Args:
            images: (B, C, H, W) uint8 or (B, D) float32.
        """
        return self.extractor(images).float()

    def check(self) -> None:
        """Raise ``UsageError`` when weights are missing; to be called before sampling."""
        check_with_key(self.extractor.check, key=f"metric.{self.name}.extractor.weights")

    def prepare(
        self,
        reference: SampleSet,
        *,
        cache_dir: Path | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 256,
    ) -> None:
        """Compute the reference's features, or read them from the cache.

        Args:
            reference: The real samples.
            cache_dir: Folder of cached features; None computes them anew.
            device: Where the extractor and the metric run.
            batch_size: Samples per call of the extractor, >= 1.

        Raises:
            UsageError: If weights are missing, or the reference has too few samples.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if self.needs_reference:
            self.refuse_few(len(reference.images), what=reference.name)
        self.extractor.load(device=device)
        self.device, self._batch_size = torch.device(device), batch_size
        self._cache_dir, self._floors = cache_dir, {}
        self._reference = self._features(reference) if self.needs_reference else None
        self._protocol = Protocol.against(
            reference,
            metric="",
            extractor=self.extractor.name,
            weights_sha256=self.extractor.weights_sha256,
            resize=self.extractor.resize,
            quantization=self.extractor.quantization,
            n_ref=len(reference.images),
            settings=self.settings,
        )

    def floor(self, heldout: SampleSet) -> float:
        """The first number of real held-out samples; nan, with a line in the log, if they are few.

        Afterwards every record carries its own as ``extra["floor"]`` and ``extra["floor_count"]``.

        Args:
            heldout: Real samples that are not in the reference.
        """
        _ = self.protocol
        count = len(heldout.images)
        if count < self.minimum_samples:
            _LOG.info("metric %s: no floor, %s has %d samples", self.name, heldout.name, count)
            return math.nan
        measured = self.measure(self._features(heldout).to(self.device))
        self._floors = {m.name: {"floor": m.value, "floor_count": count} for m in measured}
        return measured[0].value

    @property
    def reference(self) -> Tensor:
        """Features of the reference, (N, d) float32, on the metric's device.

        Raises:
            RuntimeError: Before ``prepare``.
        """
        if self._reference is None:
            raise RuntimeError(f"metric {self.name}: prepare() has not been called")
        return self._reference.to(self.device)

    @property
    def protocol(self) -> Protocol:
        """The metric's side of the protocol, with ``n_gen`` 0 and without what is computed."""
        if self._protocol is None:
            raise RuntimeError(f"metric {self.name}: prepare() has not been called")
        return self._protocol

    def accumulator(self) -> "FeatureAccumulator":
        """A fresh accumulator against the prepared reference."""
        _ = self.protocol
        return FeatureAccumulator(self)

    def record(self, measured: Measured, *, count: int) -> MetricRecord:
        """A number with its protocol and its floor."""
        return MetricRecord(
            name=measured.name,
            value=measured.value,
            protocol=replace(self.protocol, metric=measured.metric, n_gen=count),
            extra={**measured.extra, **self._floors.get(measured.name, {})},
        )

    def refuse_few(self, count: int, *, what: str) -> None:
        """Raise ``UsageError`` if these are fewer samples than have a value."""
        if count < self.minimum_samples:
            raise UsageError(
                f"{self.name} ({self.settings}) needs at least {self.minimum_samples} samples, but "
                f"{what} has {count}.",
                key=f"metric.{self.name}",
                remedy="Take more samples, or other settings, which are another protocol.",
            )

    def _features(self, samples: SampleSet) -> Tensor:
        def compute() -> Tensor:
            start = time.perf_counter()
            # a copy, since torch warns about memory it may not write to
            batches = [
                self.extractor(torch.from_numpy(np.array(samples.images[i : i + size]))).cpu()
                for i in range(0, len(samples.images), size)
            ]
            took = time.perf_counter() - start
            _LOG.info("%s features of %s: %.1f s", self.extractor.name, samples.name, took)
            return torch.cat(batches).float()

        size = self._batch_size
        return cached_features(
            compute, samples=samples, extractor=self.extractor, cache_dir=self._cache_dir
        )


class FeatureAccumulator:
    """Rows of all generated samples, in order.

    Args:
        metric: The prepared metric that owns the reference.
    """

    def __init__(self, metric: FeatureMetric) -> None:
        self._metric = metric
        self._ranks: list[list[Tensor]] = [[]]

    @property
    def rows(self) -> Tensor:
        """What is kept of all samples, (n, d), in the order of the batches over all ranks."""
        turns = zip_longest(*self._ranks)
        batches = [batch for turn in turns for batch in turn if batch is not None]
        return torch.cat(batches) if batches else torch.empty(0, 0)

    def update(self, images: Tensor) -> None:
        """Add a batch, (B, C, H, W) uint8 or (B, D) float32."""
        if len(images):
            self._ranks[0].append(self._metric.rows(images).detach().cpu())

    def merge(self, other: "FeatureAccumulator") -> None:
        """Add what the next rank has seen; to be called in the order of the ranks."""
        self._ranks.extend(other._ranks)

    def state(self) -> dict[str, Tensor]:
        """All rows, (n, d), and the sizes of the batches they came in, (batches,) int64."""
        batches = [batch for turn in zip_longest(*self._ranks) for batch in turn]
        kept = [batch for batch in batches if batch is not None]
        return {
            "rows": self.rows,
            "batches": torch.tensor([len(batch) for batch in kept], dtype=torch.int64),
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Replace what was seen by a stored state."""
        sizes = [int(size) for size in state["batches"]]
        self._ranks = [list(torch.split(state["rows"], sizes)) if sizes else []]

    def compute(self) -> tuple[MetricRecord, ...]:
        """The numbers so far; nan when a sample was not finite.

        Raises:
            UsageError: With too few samples.
        """
        rows = self.rows
        self._metric.refuse_few(len(rows), what="the generated set")
        measured = self._metric.measure(rows.to(self._metric.device))
        if not rows.isfinite().all():
            _LOG.warning("%s: some samples are not finite, the value is nan", self._metric.name)
            measured = tuple(replace(m, value=math.nan, extra={}) for m in measured)
        return tuple(self._metric.record(m, count=len(rows)) for m in measured)
