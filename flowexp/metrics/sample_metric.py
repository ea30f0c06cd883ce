"""What all metrics of samples share: their protocol, their floor, and rows kept in order."""

import logging
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.metrics.base import Accumulator, Metric, SampleSet
from flowexp.metrics.protocol import MetricRecord, Protocol
from flowexp.requirements import Part

_LOG = logging.getLogger(__name__)
_Part = TypeVar("_Part")
Records = tuple[MetricRecord, ...]


class SampleMetric(Part, Metric):
    """A metric that looks at samples.

    Args:
        name: Stem of the metric's key.

    Attributes:
        settings: The numbers inside the metric, for the protocol.
        needs_reference: Whether samples are compared with a reference set.
    """

    paired = False
    minimum_samples = 1
    settings: str | None = None
    needs_reference: bool = False

    def __init__(self, *, name: str) -> None:
        self.name = name
        self.device = torch.device("cpu")
        self.batch_size = 256
        self.cache_dir: Path | None = None
        self._protocol: Protocol | None = None
        self._floors: dict[str, dict[str, float]] = {}

    def check(self) -> None:
        return  # most metrics need no file

    @abstractmethod
    def described(self, reference: SampleSet) -> dict[str, Any]:
        """The metric's own fields of the protocol, but for settings."""

    def set_reference(self, reference: SampleSet) -> None:
        """Compute the reference statistics; device, cache and protocol are set."""
        return

    @abstractmethod
    def of_real(self, samples: SampleSet) -> Records:
        """The numbers of a set of real samples."""

    def prepare(
        self,
        reference: SampleSet,
        *,
        cache_dir: Path | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 256,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if self.needs_reference:
            self.refuse_few(len(reference.images), what=reference.name)
        self.device, self.batch_size = torch.device(device), batch_size
        self.cache_dir, self._floors = cache_dir, {}
        self._protocol = Protocol.against(
            reference, settings=self.settings, **self.described(reference)
        )
        self.set_reference(reference)

    def batches(self, samples: SampleSet) -> Iterator[Tensor]:
        """The images of a set, ``batch_size`` at a time, on the CPU."""
        for i in range(0, len(samples.images), self.batch_size):
            # a copy, since torch warns about memory it may not write to
            yield torch.from_numpy(np.array(samples.images[i : i + self.batch_size]))

    def floor(self, heldout: SampleSet) -> float:
        _ = self.protocol
        count = len(heldout.images)
        if count < self.minimum_samples:
            _LOG.info("metric %s: no floor, %s has %d samples", self.name, heldout.name, count)
            return math.nan
        found = self.of_real(heldout)
        self._floors = {r.name: {"floor": r.value, "floor_count": count} for r in found}
        return found[0].value

    @property
    def protocol(self) -> Protocol:
        """The metric's side of the protocol, with ``n_gen`` 0.

        Raises:
            RuntimeError: Before ``prepare``.
        """
        return self.prepared(self._protocol)

    def prepared(self, part: _Part | None) -> _Part:
        """What ``prepare`` has set; raises ``RuntimeError`` before."""
        if part is None:
            raise RuntimeError(f"metric {self.name}: prepare() has not been called")
        return part

    def record(
        self,
        metric: str,
        value: float,
        *,
        count: int,
        name: str | None = None,
        extra: Mapping[str, float] | None = None,
    ) -> MetricRecord:
        """A number with its protocol and its floor.

        Args:
            metric: What is computed, as in :class:`Protocol`.
            value: The number.
            count: Samples behind it.
            name: Name of the record, for example ``recall``; None = the metric's.
            extra: Numbers shown beside it.
        """
        name = name or self.name
        protocol = replace(self.protocol, metric=metric, n_gen=count)
        beside = {**(extra or {}), **self._floors.get(name, {})}
        return MetricRecord(name=name, value=value, protocol=protocol, extra=beside)

    def not_finite(self, records: Records) -> Records:
        """The records of samples that are not all finite, with nan as value; logs a warning."""
        _LOG.warning("%s: some samples are not finite, the value is nan", self.name)
        return tuple(
            replace(r, value=math.nan, extra=self._floors.get(r.name, {})) for r in records
        )

    def refuse_few(self, count: int, *, what: str = "the generated set") -> None:
        """Raise ``UsageError`` if these are fewer samples than have a value."""
        least = self.minimum_samples
        if count < least:
            how = f" ({self.settings})" if self.settings else ""
            samples = "1 sample" if least == 1 else f"{least} samples"
            raise UsageError(
                f"{self.name}{how} needs at least {samples}, but {what} has {count}.",
                key=f"metric.{self.name}",
                remedy="Take more samples, or other settings, which are another protocol.",
            )


class RowMetric(SampleMetric):
    """A metric that keeps a row of numbers of every sample.

    Rows are in the order of the samples: random subsets and splits are drawn by position, so the
    value must not depend on how many processes shared the work.
    """

    @abstractmethod
    def rows(self, *images: Tensor) -> Tensor:
        """What is kept of a batch, (B, d).

        Args:
            images: (B, C, H, W) uint8 or (B, D) float32; followed by targets if paired.
        """

    @abstractmethod
    def measure(self, rows: Tensor) -> Records:
        """The numbers of a set of samples.

        Args:
            rows: What ``rows`` gave, (n, d), n >= ``minimum_samples``, on the metric's device.
        """

    def accumulator(self) -> "RowAccumulator":
        _ = self.protocol
        return RowAccumulator(self)


class RowAccumulator(Accumulator):
    """Rows of all generated samples, in order.

    Evaluation hands process r the batches r, r + world, r + 2 world, ...; merging undoes that.

    Args:
        metric: The prepared metric.
    """

    def __init__(self, metric: RowMetric) -> None:
        self._metric = metric
        self._ranks: list[list[Tensor]] = [[]]

    @property
    def _batches(self) -> list[Tensor]:
        turns = zip_longest(*self._ranks)
        return [batch for turn in turns for batch in turn if batch is not None]

    @property
    def rows(self) -> Tensor:
        """What is kept of all samples, (n, d), in the order of the batches over all ranks."""
        return torch.cat(self._batches) if self._batches else torch.empty(0, 1)

    def update(self, *images: Tensor) -> None:
        if len(images[0]):
            self._ranks[0].append(self._metric.rows(*images).detach().cpu())

    def merge(self, other: "RowAccumulator") -> None:
        self._ranks.extend(other._ranks)

    def state(self) -> dict[str, Tensor]:
        """All rows, (n, d), and the sizes of the batches they came in, (batches,) int64."""
        sizes = torch.tensor([len(batch) for batch in self._batches], dtype=torch.int64)
        return {"rows": self.rows, "batches": sizes}

    def load(self, state: dict[str, Tensor]) -> None:
        sizes = state["batches"].tolist()
        self._ranks = [list(torch.split(state["rows"], sizes)) if sizes else []]

    def compute(self) -> Records:
        rows = self.rows
        self._metric.refuse_few(len(rows))
        records = self._metric.measure(rows.to(self._metric.device))
        # quantised pairs are finite, and the PSNR of equal ones is inf
        finite = self._metric.paired or bool(rows.isfinite().all())
        return records if finite else self._metric.not_finite(records)
