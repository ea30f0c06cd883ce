"""PSNR and SSIM of image pairs, per image and in float64, each convention by its own name.

``prediction`` and ``target`` are (B, C, H, W) in one scale, and ``data_range`` is the width of its
value range: 1 for [0, 1], 2 for [-1, 1], 255 for uint8. Giving 1 with data in [-1, 1] costs 6.02
dB. Values come per image, (B,) float64: averaging errors over a batch first would make the number
depend on the batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

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

    Raises:
        ValueError: If images are smaller than 11 x 11.

    Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural
    similarity".
    """
    _refuse_small(prediction, side=2 * _RIM + 1)
    similarity = _gaussian_ssim(prediction, target, data_range)
    return similarity[..., _RIM:-_RIM, _RIM:-_RIM].flatten(1).mean(1)


def ssim_reflected(prediction: Tensor, target: Tensor, *, data_range: float) -> Tensor:
    """SSIM with a Gaussian window over the whole image, reflected at the border: torchmetrics'.

    Raises:
        ValueError: If images are smaller than 6 x 6.
    """
    _refuse_small(prediction, side=_RIM + 1)
    return _gaussian_ssim(prediction, target, data_range).flatten(1).mean(1)


# torchmetrics has no sample covariance
def ssim_uniform(prediction: Tensor, target: Tensor, *, data_range: float) -> Tensor:
    """SSIM with a 7 x 7 uniform window, interior only: scikit-image's default.

    Variances carry n - 1 in the denominator here.

    Raises:
        ValueError: If images are smaller than 7 x 7.
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
