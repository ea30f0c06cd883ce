"""Metrics that compare each sample with a target of its own: PSNR, SSIM, perceptual distances.

The number is the mean of the values of the images; pooling errors over a batch first would make it
depend on the batch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.metrics.base import SampleSet
from flowexp.metrics.image_quality import psnr, ssim_interior, ssim_reflected
from flowexp.metrics.perceptual import PerceptualDistance
from flowexp.metrics.pretrained import checked_images, float32_inference
from flowexp.metrics.protocol import PIXELS, UINT8, MetricRecord, Protocol
from flowexp.metrics.weight_files import check_with_key
from flowexp.requirements import Part, Parts, Unmet, of_pictures

_LEVELS = 255.0


class PairedMetric(Part, ABC):
    """Mean over pairs of a value per pair.

    Args:
        name: Stem of the metric's key.

    Attributes:
        paired: Whether samples are compared with targets of their own: yes.
        minimum_samples: Fewest pairs that have a value.
        metric: What is computed, with its convention, as it appears in titles.
        extractor_name: Features it is computed on.
        resize: How images are brought to the features' size.
        weights_sha256: SHA-256 of the features' weights, None without weights.
        settings: The numbers inside the metric.
    """

    paired = True
    minimum_samples = 1
    metric: str
    settings: str
    extractor_name = PIXELS
    resize = "none"
    weights_sha256: str | None = None

    def __init__(self, *, name: str) -> None:
        self.name = name
        self._protocol: Protocol | None = None

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Pictures."""
        yield from of_pictures(parts, name=self.name, remedy="Use metric=fd_raw.")

    @abstractmethod
    def values(self, images: Tensor, targets: Tensor) -> Tensor:
        """One value per pair, (B,) float64.

        Args:
            images: (B, 1 or 3, H, W) uint8.
            targets: The same shape and type, on the same device.
        """

    def check(self) -> None:
        """Raise ``UsageError`` when something needed is missing; most need nothing."""

    def prepare(
        self,
        reference: SampleSet,
        *,
        cache_dir: Path | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 256,
    ) -> None:
        """Take the name of the data set; there are no reference statistics.

        Args:
            reference: The data the targets come from.
            cache_dir: Not used.
            device: Not used, values are computed where the images are.
            batch_size: Not used.
        """
        self._protocol = Protocol.against(
            reference,
            metric=self.metric,
            extractor=self.extractor_name,
            weights_sha256=self.weights_sha256,
            resize=self.resize,
            quantization=UINT8,
            n_ref=None,
            settings=self.settings,
        )

    def floor(self, heldout: SampleSet) -> float:
        """There is none: a real image is its own target. nan.

        Args:
            heldout: Not used.
        """
        return math.nan

    @property
    def protocol(self) -> Protocol:
        """The metric's side of the protocol, with ``n_gen`` 0."""
        if self._protocol is None:
            raise RuntimeError(f"metric {self.name}: prepare() has not been called")
        return self._protocol

    def accumulator(self) -> "PairedValues":
        """A fresh accumulator."""
        _ = self.protocol
        return PairedValues(self)


class PairedValues:
    """Values of all pairs so far.

    Args:
        metric: The prepared metric.
    """

    def __init__(self, metric: PairedMetric) -> None:
        self._metric = metric
        self._values: list[Tensor] = []

    def update(self, images: Tensor, targets: Tensor) -> None:
        """Add a batch of samples and their targets.

        Args:
            images: (B, 1 or 3, H, W) uint8.
            targets: The same shape and type.

        Raises:
            ValueError: If they are not uint8 images of one shape.
        """
        if checked_images(images).shape != checked_images(targets).shape:
            raise ValueError(
                f"images {tuple(images.shape)} and targets {tuple(targets.shape)} must have one "
                "shape"
            )
        if len(images):
            values = self._metric.values(images, targets.to(images.device))
            self._values.append(values.detach().to("cpu", torch.float64))

    def merge(self, other: "PairedValues") -> None:
        """Add what another rank has seen."""
        self._values.extend(other._values)

    def state(self) -> dict[str, Tensor]:
        """``values``, (n,) float64."""
        return {"values": torch.cat([torch.empty(0, dtype=torch.float64), *self._values])}

    def load(self, state: dict[str, Tensor]) -> None:
        """Replace the values by stored ones."""
        self._values = [state["values"].clone()]

    def compute(self) -> tuple[MetricRecord, ...]:
        """The mean so far.

        Raises:
            UsageError: Without a pair.
        """
        values = self.state()["values"]
        if len(values) < self._metric.minimum_samples:
            raise UsageError(
                f"{self._metric.name} needs at least 1 pair, got none.",
                key=f"metric.{self._metric.name}",
                remedy="Generate some samples from a task that has targets.",
            )
        # summed in ascending order, so that it does not depend on who computed which pair
        mean = float(values.sort().values.mean())
        protocol = replace(self._metric.protocol, n_gen=len(values))
        return (MetricRecord(name=self._metric.name, value=mean, protocol=protocol),)


class PSNR(PairedMetric):
    """10 log10(255^2 / MSE) of each image in dB, then the mean; inf if one is identical.

    Args:
        name: Stem of the metric's key.
    """

    metric = "PSNR (per image)"
    settings = "mean of the images' values, levels 0..255"

    def values(self, images: Tensor, targets: Tensor) -> Tensor:
        """One value per pair."""
        return psnr(images, targets, data_range=_LEVELS)


class SSIM(PairedMetric):
    """SSIM with an 11 x 11 Gaussian window, without the 5-pixel rim: the published one.

    Args:
        name: Stem of the metric's key.

    Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural
    similarity".
    """

    metric = "SSIM (Gaussian window, interior)"
    settings = "sigma 1.5, 11 x 11, K 0.01 and 0.03, per channel, levels 0..255"

    def values(self, images: Tensor, targets: Tensor) -> Tensor:
        """One value per pair."""
        return ssim_interior(images, targets, data_range=_LEVELS)


class ReflectedSSIM(PairedMetric):
    """SSIM with an 11 x 11 Gaussian window over the whole image, reflected: torchmetrics'.

    Args:
        name: Stem of the metric's key.
    """

    metric = "SSIM (Gaussian window, reflected border)"
    settings = SSIM.settings

    def values(self, images: Tensor, targets: Tensor) -> Tensor:
        """One value per pair."""
        return ssim_reflected(images, targets, data_range=_LEVELS)


class PerceptualSimilarity(PairedMetric):
    """A perceptual distance of each pair, then the mean.

    Args:
        distance: The distance, for example :class:`LPIPS`.
        name: Stem of the metric's key; ``lpips`` only for LPIPS.

    Raises:
        ValueError: If ``name`` claims LPIPS wrongly.
    """

    settings = "mean of the pairs' values"
    chunk = 32

    def __init__(self, distance: PerceptualDistance, *, name: str) -> None:
        super().__init__(name=name)
        if "lpips" in name.lower() and not distance.metric.startswith("LPIPS"):
            raise ValueError(f"name={name!r}: {distance.metric} must not be called LPIPS")
        self.distance = distance
        self.metric = distance.metric
        self.resize = distance.resize_name

    def check(self) -> None:
        """Raise ``UsageError`` when weights are missing."""
        check_with_key(self.distance.check, key=f"metric.{self.name}.distance.weights")

    def prepare(
        self,
        reference: SampleSet,
        *,
        cache_dir: Path | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 256,
    ) -> None:
        """Check the weights and take the name of the data set.

        Args:
            reference: The data the targets come from.
            cache_dir: Not used.
            device: Not used, values are computed where the images are.
            batch_size: Not used.
        """
        self.check()
        self.extractor_name = self.distance.features_name
        self.weights_sha256 = self.distance.weights_sha256
        super().prepare(reference, cache_dir=cache_dir, device=device, batch_size=batch_size)

    def values(self, images: Tensor, targets: Tensor) -> Tensor:
        """One value per pair, in full precision."""
        pairs = zip(torch.split(images, self.chunk), torch.split(targets, self.chunk), strict=True)
        with float32_inference(images.device):
            found = [self.distance(a.float() / 127.5 - 1, b.float() / 127.5 - 1) for a, b in pairs]
        return torch.cat(found)
