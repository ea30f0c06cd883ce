"""The protocols between the evaluation loop and the metrics.

A metric is prepared once (reference statistics), hands out one accumulator per set of generated
samples, and the accumulator returns records that carry their whole protocol.
"""

import logging
import math
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.metrics.protocol import UINT8, MetricRecord, Protocol
from flowexp.processes import in_turn
from flowexp.progress import counted
from flowexp.requirements import Part

__all__ = []

_LOG = logging.getLogger(__name__)
_Prepared = TypeVar("_Prepared")
Records = tuple[MetricRecord, ...]


class SampleSet(typing.Protocol):
    """What a metric needs of a data set."""

    @property
    def images(self) -> npt.NDArray[Any]:
        """Samples, (N, C, H, W) uint8 or (N, D) float32 points, possibly memory-mapped."""

    @property
    def fingerprint(self) -> str:
        """Hash of the content."""

    @property
    def name(self) -> str:
        """Name of data set and split, for example ``fashion10k/train``."""

    @property
    def notice(self) -> str | None:
        """A caveat that belongs beside every number, or None."""


@typing.runtime_checkable
class Extractor(typing.Protocol):
    """A frozen map from samples to feature vectors, loaded when first needed.

    Attributes:
        name: Full name as printed beside a number.
        dim: Number of features d, or None when the samples decide.
        resize: How samples are brought to the network's size.
        on_points: Whether points have these features, as well as images.
        quantization: What the samples are expected to be quantised to.
    """

    name: str
    dim: int | None
    resize: str
    on_points: bool
    quantization: str

    @property
    def weights_sha256(self) -> str | None:
        """SHA-256 of the weights file, None when there are no weights."""

    def check(self) -> None:
        """Raise ``UsageError`` when the weights are missing or wrong; reads no sample."""

    def load(self, *, device: torch.device | str = "cpu") -> Self:
        """Load the weights (once) and move them to ``device``; returns itself."""

    def __call__(self, images: Tensor) -> Tensor:
        """Features, (B, d) float32, of a batch, (B, C, H, W) uint8 or (B, D) float32 points.

        They are on the extractor's device. Samples it has no features of raise ``ValueError``.
        """


class Accumulator(typing.Protocol):
    """The running state of one metric over one set of generated samples."""

    def update(self, *images: Tensor) -> None:
        """Add samples, (B, C, H, W) uint8 or (B, D) float32; targets follow if it is paired."""

    def merge(self, other: Self) -> None:
        """Add what the next rank has seen; to be called in the order of the ranks."""

    def state(self) -> dict[str, Tensor]:
        """The state as plain tensors, to be sent between ranks or stored."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Replace the state by one that ``state`` returned."""

    def compute(self) -> Records:
        """The values so far, each with its protocol except for the fields of the run.

        Raises ``UsageError`` with too few samples.
        """


class Metric(Part, ABC):
    """A named protocol that turns samples into numbers.

    Args:
        name: Stem of the metric's key, for example ``fd_efflite0``.

    Attributes:
        paired: Whether each sample is compared with a target of its own.
        minimum_samples: Fewest samples, generated or real, that have a value.
        settings: The numbers inside the metric, for the protocol.
        needs_reference: Whether samples are compared with a reference set.
        higher_is_better: Whether more of its first number is better; None = neither.
        zero: Completes "0 would mean ..." about its first number; None if multiples of
            the floor mean nothing.
    """

    paired: bool = False
    minimum_samples: int = 1
    settings: str | None = None
    needs_reference: bool = False
    higher_is_better: bool | None = False
    zero: str | None = None

    def __init__(self, *, name: str) -> None:
        self.name = name
        self.device = torch.device("cpu")
        self.batch_size = 256
        self.cache_dir: Path | None = None
        self._protocol: Protocol | None = None
        self._floors: dict[str, dict[str, float]] = {}

    def check(self) -> None:
        """Raise ``UsageError`` when something needed is missing; to be called before sampling."""
        return  # most metrics need no file

    @abstractmethod
    def described(self, reference: SampleSet) -> dict[str, Any]:
        """The metric's own fields of the protocol, except ``settings``."""

    def set_reference(self, reference: SampleSet) -> None:
        """Compute the reference statistics; device, cache and protocol are set."""
        return

    @abstractmethod
    def of_real(self, samples: SampleSet) -> Records:
        """The numbers of a set of real samples."""

    @abstractmethod
    def accumulator(self) -> Accumulator:
        """A fresh accumulator; raises ``RuntimeError`` before ``prepare``."""

    def prepare(
        self,
        reference: SampleSet,
        *,
        cache_dir: Path | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 256,
    ) -> None:
        """Compute the statistics of real samples, or read them from the cache (None = no cache).

        The reference of a paired metric is the data set of the targets.

        Raises:
            UsageError: Weights are missing, a file is of another protocol, or the reference has too
                few samples.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if self.needs_reference:
            self.refuse_few(len(reference.images), what=reference.name)
        self.device, self.batch_size = torch.device(device), batch_size
        self.cache_dir, self._floors = cache_dir, {}
        described = self.described(reference)
        self._protocol = Protocol.against(reference, settings=self.settings, **described)
        self.set_reference(reference)

    def batches(self, samples: SampleSet) -> Iterator[Tensor]:
        """The images of a set, ``batch_size`` at a time, on the CPU."""
        count, unit = len(samples.images), f"images of {samples.name}"
        with counted("statistics of", total=count, unit=unit) as task:
            for i in range(0, count, self.batch_size):
                # a copy, since torch warns about memory it may not write to
                yield torch.from_numpy(np.array(samples.images[i : i + self.batch_size]))
                task.advance(self.batch_size)

    def floor(self, heldout: SampleSet) -> float:
        """The first number of real held-out samples; nan, with a line in the log, if they are few.

        Afterwards every record carries its own as ``extra["floor"]`` and ``extra["floor_count"]``.
        """
        _ = self.protocol
        count = len(heldout.images)
        if count < self.minimum_samples:
            _LOG.info("metric %s: no floor, %s has %d samples", self.name, heldout.name, count)
            return math.nan
        found = self.of_real(heldout)
        self._floors = {r.name: {"floor": r.value, "floor_count": count} for r in found}
        return found[0].value

    def reconstruction(self, decoded: SampleSet) -> None:
        """Measure real images that were encoded and decoded: the floor that an autoencoder sets.

        Afterwards every record carries its own as ``extra["reconstruction"]``, with
        ``extra["reconstruction_count"]``.
        """
        _ = self.protocol
        count = len(decoded.images)
        if count < self.minimum_samples:
            _LOG.info("metric %s: no floor, %s has %d samples", self.name, decoded.name, count)
            return
        for r in self.of_real(decoded):
            beside = {"reconstruction": r.value, "reconstruction_count": float(count)}
            self._floors[r.name] = {**self._floors.get(r.name, {}), **beside}

    def remark(self, *, count: int) -> str | None:
        """A remark to show beside a score of ``count`` samples, or None."""
        return None

    @property
    def protocol(self) -> Protocol:
        """The metric's side of the protocol, ``n_gen`` = 0; ``RuntimeError`` before ``prepare``."""
        return self.prepared(self._protocol)

    def prepared(self, part: _Prepared | None) -> _Prepared:
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
        """A number of ``count`` samples with its protocol, its floor and ``extra`` numbers.

        ``metric`` is what is computed, as in :class:`Protocol`; ``name`` is that of the record, for
        example ``recall``, None = the metric's.
        """
        name = name or self.name
        stated = replace(self.protocol, metric=metric, n_gen=count)
        beside = {**(extra or {}), **self._floors.get(name, {})}
        return MetricRecord(name=name, value=value, protocol=stated, extra=beside)

    def not_a_number(self, records: Records, *, reason: str) -> Records:
        """The records with nan as value, for this ``reason``; logs a warning."""
        _LOG.warning("%s is not a number: %s", self.name, reason)
        return tuple(
            replace(r, value=math.nan, extra=self._floors.get(r.name, {}), reason=reason)
            for r in records
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


class RowMetric(Metric):
    """A metric that keeps a row of numbers of every sample.

    Rows are in the order of the samples: random subsets and splits are drawn by position, so the
    value must not depend on how many processes shared the work.
    """

    @abstractmethod
    def rows(self, *images: Tensor) -> Tensor:
        """What is kept, (B, d), of a batch as ``Accumulator.update`` takes it."""

    @abstractmethod
    def measure(self, rows: Tensor) -> Records:
        """The numbers of n >= ``minimum_samples`` samples, of their rows on the metric's device."""

    def accumulator(self) -> "RowAccumulator":
        _ = self.protocol
        return RowAccumulator(self)


class RowAccumulator(Accumulator):
    """Rows of all generated samples, in order."""

    def __init__(self, metric: RowMetric) -> None:
        self._metric = metric
        self._ranks: list[list[Tensor]] = [[]]

    @property
    def rows(self) -> Tensor:
        """What is kept of all samples, (n, d), in the order of the batches over all ranks."""
        batches = in_turn(self._ranks)
        return torch.cat(batches) if batches else torch.empty(0, 1)

    def update(self, *images: Tensor) -> None:
        if len(images[0]):
            self._ranks[0].append(self._metric.rows(*images).detach().cpu())

    def merge(self, other: "RowAccumulator") -> None:
        self._ranks.extend(other._ranks)

    def state(self) -> dict[str, Tensor]:
        """All rows, (n, d), and the sizes of the batches they came in, (batches,) int64."""
        sizes = torch.tensor([len(b) for b in in_turn(self._ranks)], dtype=torch.int64)
        return {"rows": self.rows, "batches": sizes}

    def load(self, state: dict[str, Tensor]) -> None:
        sizes = state["batches"].tolist()
        self._ranks = [list(torch.split(state["rows"], sizes)) if sizes else []]

    def compute(self) -> Records:
        rows = self.rows
        self._metric.refuse_few(len(rows))
        records = self._metric.measure(rows.to(self._metric.device))
        # quantised pairs are finite, and the PSNR of equal ones is inf
        finite = len(rows) if self._metric.paired else int(rows.isfinite().all(1).sum())
        if finite == len(rows):
            return records
        reason = f"{len(rows) - finite} of {len(rows)} samples have features that are not finite"
        return self._metric.not_a_number(records, reason=reason)


class RawValues(Extractor):
    """Flattened values: points as they are, uint8 images as v / 127.5 - 1.

    Sensible while C * H * W is small against the sample count.
    """

    name = "raw values"
    dim: int | None = None
    weights_sha256: str | None = None
    resize = "none"
    on_points: bool = True
    quantization = f"{UINT8}; points none"

    def __init__(self) -> None:
        self._device = torch.device("cpu")

    def load(self, *, device: torch.device | str = "cpu") -> Self:
        self._device = torch.device(device)
        return self

    def __call__(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            return images.to(self._device).flatten(1).float() / 127.5 - 1
        if images.is_floating_point() and images.ndim == 2:
            return images.to(self._device, torch.float32)
        raise ValueError(
            "samples must be uint8 images or (B, D) floating-point points, "
            f"got {images.dtype} of shape {tuple(images.shape)}"
        )
