"""Metrics that compare each sample with a target of its own: PSNR, SSIM, perceptual distances.

The number is the mean of the values of the images; pooling errors over a batch first would make it
depend on the batch.

In the functions ``prediction`` and ``target`` are (B, C, H, W) in one scale, and ``data_range`` is
the width of its value range: 1 for [0, 1], 2 for [-1, 1], 255 for uint8; giving 1 with data in
[-1, 1] costs 6.02 dB. Values are float64, one per image, (B,).
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flowexp.metrics.base import Records, RowMetric, SampleSet
from flowexp.metrics.perceptual import FeatureDistance
from flowexp.metrics.pretrained import checked_images, float32_inference
from flowexp.metrics.protocol import PIXELS, UINT8
from flowexp.metrics.weight_files import check_with_key
from flowexp.requirements import Parts, Unmet, of_images

_LEVELS = 255.0
_K1, _K2 = 0.01, 0.03
_RIM = 5
_UNIFORM_SIDE = 7


# torchmetrics' PSNR computes the logarithm of the range in float32, which costs 1e-7 relative
def psnr(prediction: Tensor, target: Tensor, *, data_range: float) -> Tensor:
    """10 log10(data_range^2 / MSE) of each image in dB; inf for identical images."""
    x, y = _pair(prediction, target, data_range)
    error = (x - y).square().flatten(1).mean(1)
    return 10 * torch.log10(data_range**2 / error)


def psnr_pooled(prediction: Tensor, target: Tensor, *, data_range: float) -> float:
    """PSNR in dB of the error pooled over the whole batch: torchmetrics' default."""
    pooled = psnr(prediction.flatten()[None], target.flatten()[None], data_range=data_range)
    return float(pooled[0])


def ssim_interior(prediction: Tensor, target: Tensor, *, data_range: float) -> Tensor:
    """SSIM with an 11 x 11 Gaussian window, without the 5-pixel rim: Wang's original.

    Equals scikit-image with ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``.
    Images smaller than 11 x 11 raise ``ValueError``.

    Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural
    similarity".
    """
    _refuse_small(prediction, side=2 * _RIM + 1)
    similarity = _gaussian_ssim(prediction, target, data_range)
    return similarity[..., _RIM:-_RIM, _RIM:-_RIM].flatten(1).mean(1)


def ssim_reflected(prediction: Tensor, target: Tensor, *, data_range: float) -> Tensor:
    """SSIM with a Gaussian window over the whole image, reflected at the border: torchmetrics'.

    Images smaller than 6 x 6 raise ``ValueError``.
    """
    _refuse_small(prediction, side=_RIM + 1)
    return _gaussian_ssim(prediction, target, data_range).flatten(1).mean(1)


# torchmetrics has no sample covariance
def ssim_uniform(prediction: Tensor, target: Tensor, *, data_range: float) -> Tensor:
    """SSIM with a 7 x 7 uniform window, interior only: scikit-image's default.

    Variances carry n - 1 in the denominator here. Images smaller than 7 x 7 raise ``ValueError``.
    """
    x, y = _pair(prediction, target, data_range)
    _refuse_small(x, side=_UNIFORM_SIDE)
    count = _UNIFORM_SIDE**2
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    mean_x, mean_y, xx, yy, xy = (
        F.avg_pool2d(image, _UNIFORM_SIDE, stride=1) for image in (x, y, x * x, y * y, x * y)
    )
    variances = (xx - mean_x.square() + yy - mean_y.square()) * count / (count - 1)
    covariance = (xy - mean_x * mean_y) * count / (count - 1)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).flatten(1).mean(1)


def _gaussian_ssim(prediction: Tensor, target: Tensor, data_range: float) -> Tensor:
    """The similarity of every pixel, (B, C, H, W), with images reflected at the border."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    x, y = _pair(prediction, target, data_range)
    _, similarity = structural_similarity_index_measure(
        x, y, data_range=data_range, k1=_K1, k2=_K2, return_full_image=True
    )
    return similarity


def _refuse_small(images: Tensor, *, side: int) -> None:
    if min(images.shape[-2:]) < side:
        raise ValueError(f"images must be at least {side} pixels wide and high for this window")


def _pair(prediction: Tensor, target: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    if prediction.shape != target.shape:
        raise ValueError(
            "prediction and target must be (B, C, H, W) of one shape, got "
            f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    if data_range <= 0:
        raise ValueError(f"data_range must be positive, got {data_range}")
    return prediction.double(), target.double()


class PairedMetric(RowMetric):
    """Mean over pairs of a value per pair: ``metric``, with its convention, as in titles."""

    paired = True
    higher_is_better = True
    metric: str

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Images."""
        yield from of_images(parts, name=self.name, remedy="Use metric=fd_raw.")

    @abstractmethod
    def values(self, images: Tensor, targets: Tensor) -> Tensor:
        """One value per pair, (B,) float64, of batches (B, 1 or 3, H, W) uint8 on one device."""

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
        """The values, (B, 1) float64; ``ValueError`` unless both are uint8 images of one shape."""
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
    """A perceptual distance of each pair, for example :class:`LPIPS`, then the mean.

    Raises:
        ValueError: If ``name`` says LPIPS of another distance.
    """

    settings = "mean of the pairs' values"
    higher_is_better = False
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
