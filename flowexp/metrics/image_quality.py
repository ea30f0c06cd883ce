"""PSNR and SSIM of image pairs, per image and in float64, each convention by its own name.

``data_range`` is the width of the value range: 1 for [0, 1], 2 for [-1, 1], 255 for uint8. Giving 1
with data in [-1, 1] costs 6.02 dB.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_K1, _K2 = 0.01, 0.03
_GAUSS_SIGMA, _GAUSS_RADIUS = 1.5, 5
_UNIFORM_RADIUS = 3


def psnr(prediction: Tensor, target: Tensor, *, data_range: float) -> Tensor:
    """10 log10(data_range^2 / MSE) of each image; inf for identical images.

    Average the values of the images; pooling the errors of a batch first depends on the batch.

    Args:
        prediction: (B, C, H, W).
        target: (B, C, H, W), same scale.
        data_range: Width of the value range.

    Returns:
        (B,) float64, in dB.
    """
    x, y = _pair(prediction, target, data_range)
    error = (x - y).square().flatten(1).mean(1)
    return 10 * torch.log10(data_range**2 / error)


def psnr_pooled(prediction: Tensor, target: Tensor, *, data_range: float) -> float:
    """PSNR of the error pooled over the whole batch: torchmetrics' default.

    Args:
        prediction: (B, C, H, W).
        target: (B, C, H, W), same scale.
        data_range: Width of the value range.
    """
    x, y = _pair(prediction, target, data_range)
    return float(10 * torch.log10(data_range**2 / (x - y).square().mean()))


def ssim_interior(prediction: Tensor, target: Tensor, *, data_range: float) -> Tensor:
    """SSIM with a Gaussian window, without the 5-pixel rim: Wang's original.

    Equals scikit-image with ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``.

    Args:
        prediction: (B, C, H, W), H and W >= 11.
        target: (B, C, H, W), same scale.
        data_range: Width of the value range.

    Returns:
        (B,) float64.

    Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural
    similarity".
    """
    x, y = _pair(prediction, target, data_range)
    return _similarity(x, y, data_range=data_range, window=_gaussian()).flatten(1).mean(1)


def ssim_reflected(prediction: Tensor, target: Tensor, *, data_range: float) -> Tensor:
    """SSIM with a Gaussian window over the whole image, reflected at the border: torchmetrics'.

    Args:
        prediction: (B, C, H, W), H and W >= 6.
        target: (B, C, H, W), same scale.
        data_range: Width of the value range.

    Returns:
        (B,) float64.
    """
    x, y = (
        F.pad(image, (_GAUSS_RADIUS,) * 4, mode="reflect")
        for image in _pair(prediction, target, data_range)
    )
    return _similarity(x, y, data_range=data_range, window=_gaussian()).flatten(1).mean(1)


def ssim_uniform(prediction: Tensor, target: Tensor, *, data_range: float) -> Tensor:
    """SSIM with a 7 x 7 uniform window, interior only: scikit-image's default.

    Variances carry n - 1 in the denominator here.

    Args:
        prediction: (B, C, H, W), H and W >= 7.
        target: (B, C, H, W), same scale.
        data_range: Width of the value range.

    Returns:
        (B,) float64.
    """
    x, y = _pair(prediction, target, data_range)
    side = 2 * _UNIFORM_RADIUS + 1
    window = torch.full((side,), 1 / side, dtype=torch.float64)
    unbiased = side**2 / (side**2 - 1)
    similarity = _similarity(x, y, data_range=data_range, window=window, unbiased=unbiased)
    return similarity.flatten(1).mean(1)


def _pair(prediction: Tensor, target: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    if prediction.shape != target.shape or prediction.ndim != 4:
        raise ValueError(
            "prediction and target must be (B, C, H, W) of one shape, got "
            f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    if data_range <= 0:
        raise ValueError(f"data_range must be positive, got {data_range}")
    return prediction.double(), target.double()


def _gaussian() -> Tensor:
    offset = torch.arange(-_GAUSS_RADIUS, _GAUSS_RADIUS + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offset / _GAUSS_SIGMA).square())
    return weights / weights.sum()


def _similarity(
    x: Tensor, y: Tensor, *, data_range: float, window: Tensor, unbiased: float = 1.0
) -> Tensor:
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    mean_x, mean_y = _smooth(x, window), _smooth(y, window)
    var_x = unbiased * (_smooth(x * x, window) - mean_x.square())
    var_y = unbiased * (_smooth(y * y, window) - mean_y.square())
    covariance = unbiased * (_smooth(x * y, window) - mean_x * mean_y)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return luminance * (2 * covariance + c2) / (var_x + var_y + c2)


def _smooth(x: Tensor, window: Tensor) -> Tensor:
    side = len(window)
    if min(x.shape[-2:]) < side:
        raise ValueError(f"images must be at least {side} pixels wide and high for this window")
    planes = x.flatten(0, 1)[:, None]
    window = window.to(x.device)
    planes = F.conv2d(planes, window.reshape(1, 1, side, 1))
    planes = F.conv2d(planes, window.reshape(1, 1, 1, side))
    return planes.reshape(*x.shape[:2], *planes.shape[-2:])
