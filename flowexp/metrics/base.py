"""The protocols between the evaluation loop and the metrics.

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
        """Raise ``UsageError`` when the weights are missing or wrong; reads no sample."""

    def load(self, *, device: torch.device | str = "cpu") -> Self:
        """Load the weights (once) and move them to ``device``; returns itself."""

    def __call__(self, images: Tensor) -> Tensor:
        """Features of a batch on the extractor's device.

        Args:
            images: (B, C, H, W) uint8, or (B, D) float32 points.

        Returns:
            (B, d) float32.

        Raises:
            ValueError: If the extractor has no features of such samples.
        """


class Accumulator(Protocol):
    """The running state of one metric over one set of generated samples."""

    def update(self, *images: Tensor) -> None:
        """Add a batch of samples, (B, C, H, W) uint8 or (B, D) float32.

        Args:
            images: The samples; those of a paired metric are followed by their targets.
        """

    def merge(self, other: Self) -> None:
        """Add what the next rank has seen; to be called in the order of the ranks."""

    def state(self) -> dict[str, Tensor]:
        """The state as plain tensors, to be sent between ranks or stored."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Replace the state by one that ``state`` returned."""

    def compute(self) -> tuple[MetricRecord, ...]:
        """The values so far, each with its protocol; run fields are left to the caller.

        Raises:
            UsageError: With too few samples.
        """


@runtime_checkable
class Metric(Protocol):
    """A named protocol that turns samples into numbers.

    Attributes:
        name: Stem of the metric's key, for example ``fd_efflite0``.
        paired: Whether each sample is compared with a target of its own.
        minimum_samples: Fewest samples, generated or real, that have a value.
    """

    name: str
    paired: bool
    minimum_samples: int

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
        """Compute the reference statistics, or read them from the cache.

        Args:
            reference: The real samples; the targets' data set for a paired metric.
            cache_dir: Folder of cached statistics; None = no cache.
            device: Where the metric runs.
            batch_size: Samples at a time, >= 1.

        Raises:
            UsageError: Weights are missing, a file is of another protocol, or the reference has too
                few samples.
        """

    def floor(self, heldout: SampleSet) -> float:
        """The first number of real held-out samples; nan, with a line in the log, if they are few.

        Afterwards every record carries its own as ``extra["floor"]`` and ``extra["floor_count"]``.

        Args:
            heldout: Real samples that are not in the reference.
        """

    def accumulator(self) -> Accumulator:
        """A fresh accumulator against the prepared reference.

        Raises:
            RuntimeError: Before ``prepare``.
        """
