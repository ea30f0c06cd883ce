"""The faces the evaluation loop and the metrics see of each other.

A metric is prepared once (reference statistics), hands out one accumulator per set of generated
samples, and the accumulator returns records that carry their whole protocol.
"""

from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy.typing as npt
import torch
from torch import Tensor

from flowexp.metrics.protocol import MetricRecord


class SampleSet(Protocol):
    """What a metric needs of a data set.

    ``images`` is (N, C, H, W) uint8 in 0..255, or (N, D) float32 points that are not quantised.
    ``fingerprint`` identifies the bytes, ``name`` the data set, ``notice`` is a caveat about it.
    """

    @property
    def images(self) -> npt.NDArray[Any]:
        """Samples, (N, C, H, W) uint8 or (N, D) float32, possibly memory-mapped."""

    @property
    def fingerprint(self) -> str:
        """Hash of the content."""

    @property
    def name(self) -> str:
        """Name of data set and split, for example ``fashion10k/train``."""

    @property
    def notice(self) -> str | None:
        """A caveat that belongs beside every number, or None."""


@runtime_checkable
class Extractor(Protocol):
    """A frozen map from samples to feature vectors, loaded when first needed."""

    @property
    def name(self) -> str:
        """Full name as printed beside a number."""

    @property
    def dim(self) -> int | None:
        """Number of features d, or None when the samples decide."""

    @property
    def weights_sha256(self) -> str | None:
        """SHA-256 of the weights file, None when there are no weights."""

    @property
    def resize(self) -> str:
        """How samples are brought to the network's size."""

    @property
    def on_points(self) -> bool:
        """Whether points have these features, as well as pictures."""

    @property
    def quantization(self) -> str:
        """What the samples are expected to be quantised to."""

    def check(self) -> None:
        """Raise ``UsageError`` when the weights cannot be found; reads no sample."""

    def load(self, *, device: torch.device | str = "cpu") -> Self:
        """Load the weights and move them to ``device``; returns itself."""

    def __call__(self, images: Tensor) -> Tensor:
        """Features of a batch: (B, C, H, W) uint8 (or (B, D) float32) -> (B, d) float32."""


class Accumulator(Protocol):
    """The running state of one metric over one set of generated samples."""

    def update(self, images: Tensor) -> None:
        """Add a batch, (B, C, H, W) uint8 or (B, D) float32."""

    def merge(self, other: Self) -> None:
        """Add what another rank has seen."""

    def state(self) -> dict[str, Tensor]:
        """The state as plain tensors, to be sent between ranks or stored."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Replace the state by one that ``state`` returned."""

    def compute(self) -> tuple[MetricRecord, ...]:
        """The values so far, each with its protocol; run fields are left to the caller."""


class PairedAccumulator(Protocol):
    """The running state of a metric that compares each sample with a target of its own."""

    def update(self, images: Tensor, targets: Tensor) -> None:
        """Add a batch of samples and their targets, both (B, C, H, W) uint8."""

    def merge(self, other: Self) -> None:
        """Add what another rank has seen."""

    def state(self) -> dict[str, Tensor]:
        """The state as plain tensors, to be sent between ranks or stored."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Replace the state by one that ``state`` returned."""

    def compute(self) -> tuple[MetricRecord, ...]:
        """The values so far, each with its protocol; run fields are left to the caller."""


@runtime_checkable
class Metric(Protocol):
    """A named protocol that turns samples into numbers.

    A metric whose attribute ``paired`` is True hands out a :class:`PairedAccumulator` instead.
    """

    @property
    def paired(self) -> bool:
        """Whether each sample is compared with a target of its own."""

    @property
    def minimum_samples(self) -> int:
        """Fewest samples that have a value."""

    @property
    def name(self) -> str:
        """Stem of the metric's key, for example ``fd_efflite0``."""

    def check(self) -> None:
        """Raise ``UsageError`` when something needed is missing; to be called before sampling."""

    def prepare(
        self,
        reference: SampleSet,
        *,
        cache_dir: Path | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 256,
    ) -> None:
        """Compute or load the reference statistics."""

    def floor(self, heldout: SampleSet) -> float:
        """The metric's value for real held-out data, shown beside every number."""

    def accumulator(self) -> Accumulator:
        """A fresh accumulator against the prepared reference."""
