"""Metrics that compare each sample with a target of its own: PSNR, SSIM, perceptual distances.

The number is the mean of the values of the images; pooling errors over a batch first would make it
depend on the batch.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from flowexp.metrics.base import Records, RowMetric, SampleSet
from flowexp.metrics.image_quality import psnr, ssim_interior, ssim_reflected
from flowexp.metrics.perceptual import FeatureDistance
from flowexp.metrics.pretrained import checked_images, float32_inference
from flowexp.metrics.protocol import PIXELS, UINT8
from flowexp.metrics.weight_files import check_with_key
from flowexp.requirements import Parts, Unmet, of_pictures

_LEVELS = 255.0


class PairedMetric(RowMetric):
    """Mean over pairs of a value per pair.

    Attributes:
        metric: What is computed, with its convention, as it appears in titles.
    """

    paired = True
    metric: str

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Images."""
        yield from of_pictures(parts, name=self.name, remedy="Use metric=fd_raw.")

    @abstractmethod
    def values(self, images: Tensor, targets: Tensor) -> Tensor:
        """One value per pair, (B,) float64.

        Args:
            images: (B, 1 or 3, H, W) uint8.
            targets: The same shape and type, on the same device.
        """

    def described(self, reference: SampleSet) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "extractor": PIXELS,
            "weights_sha256": None,
            "resize": "none",
            "quantization": UINT8,
            "n_ref": None,
        }

    def rows(self, *images: Tensor) -> Tensor:
        """The values of the pairs, (B, 1) float64.

        Raises:
            ValueError: If samples and targets are not uint8 images of one shape.
        """
        samples, targets = map(checked_images, images)
        if samples.shape != targets.shape:
            raise ValueError(
                f"images {tuple(samples.shape)} and targets {tuple(targets.shape)} must have one "
                "shape"
            )
        return self.values(samples, targets.to(samples.device)).double()[:, None]

    def measure(self, rows: Tensor) -> Records:
        # summed in ascending order, so that it does not depend on who computed which pair
        mean = float(rows[:, 0].sort().values.mean())
        return (self.record(self.metric, mean, count=len(rows)),)

    def of_real(self, samples: SampleSet) -> Records:
        """Nothing to compute: a real image is its own target."""
        return (self.record(self.metric, math.nan, count=len(samples.images)),)


class PSNR(PairedMetric):
    """10 log10(255^2 / MSE) of each image in dB, then the mean; inf if one is identical."""

    metric = "PSNR (per image)"
    settings = "mean of the images' values, levels 0..255"

    def values(self, images: Tensor, targets: Tensor) -> Tensor:
        return psnr(images, targets, data_range=_LEVELS)


class SSIM(PairedMetric):
    """SSIM with an 11 x 11 Gaussian window, without the 5-pixel rim; see :func:`ssim_interior`."""

    metric = "SSIM (Gaussian window, interior)"
    settings = "sigma 1.5, 11 x 11, K 0.01 and 0.03, per channel, levels 0..255"

    def values(self, images: Tensor, targets: Tensor) -> Tensor:
        return ssim_interior(images, targets, data_range=_LEVELS)


class ReflectedSSIM(PairedMetric):
    """SSIM with an 11 x 11 Gaussian window over the whole image, reflected: torchmetrics'."""

    metric = "SSIM (Gaussian window, reflected border)"
    settings = SSIM.settings

    def values(self, images: Tensor, targets: Tensor) -> Tensor:
        return ssim_reflected(images, targets, data_range=_LEVELS)


class PerceptualSimilarity(PairedMetric):
    """A perceptual distance of each pair, then the mean.

    Args:
        distance: For example :class:`LPIPS`.
        name: Stem of the metric's key; ``lpips`` only for LPIPS.

    Raises:
        ValueError: If ``name`` claims LPIPS wrongly.
    """

    settings = "mean of the pairs' values"
    chunk = 32

    def __init__(self, distance: FeatureDistance, *, name: str) -> None:
        super().__init__(name=name)
        if "lpips" in name.lower() and not distance.metric.startswith("LPIPS"):
            raise ValueError(f"name={name!r}: {distance.metric} must not be called LPIPS")
        self.distance = distance
        self.metric = distance.metric

    def check(self) -> None:
        check_with_key(self.distance.check, key=f"metric.{self.name}.distance.weights")

    def described(self, reference: SampleSet) -> dict[str, Any]:
        self.check()
        return {
            **super().described(reference),
            "extractor": self.distance.features_name,
            "weights_sha256": self.distance.weights_sha256,
            "resize": self.distance.resize_name,
        }

    def values(self, images: Tensor, targets: Tensor) -> Tensor:
        pairs = zip(torch.split(images, self.chunk), torch.split(targets, self.chunk), strict=True)
        with float32_inference(images.device):
            found = [self.distance(a.float() / 127.5 - 1, b.float() / 127.5 - 1) for a, b in pairs]
        return torch.cat(found)
