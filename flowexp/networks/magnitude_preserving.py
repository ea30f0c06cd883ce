"""Magnitude-preserving layers: activations keep unit expected magnitude without normalisation.

Magnitude is the root of the mean square over all elements. Every operation here maps inputs of unit
magnitude to an output of unit magnitude, if they are independent and, for ``mp_silu``, normal.

Source: Karras et al. 2024, arXiv 2312.02696, appendix B (equations 47, 81, 88, 103).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MPConv", "MPFourier", "mp_cat", "mp_silu", "mp_sum", "normalize", "pixel_norm"]

_SILU_MAGNITUDE = 0.596  # of silu(z), z ~ N(0, 1), as the authors round it; 0.59647 by quadrature


def normalize(x: Tensor, *, dim: int | tuple[int, ...] | None = None, eps: float = 1e-4) -> Tensor:
    """``x / (eps + |x| / sqrt(n))`` over ``dim``, where n is the number of elements of one norm.

    The norm is taken in float32, or float64 for a float64 ``x``; the result has the dtype of ``x``.

    Args:
        x: Any shape.
        dim: Dimensions of one norm; None = all but the first.
        eps: Added to the magnitude, so that zeros stay zeros.
    """
    dims = tuple(range(1, x.ndim)) if dim is None else dim
    wide = x if x.dtype == torch.float64 else x.float()
    norm: Tensor = torch.linalg.vector_norm(wide, dim=dims, keepdim=True)
    magnitude: Tensor = eps + norm * math.sqrt(norm.numel() / x.numel())
    return x / magnitude.to(x.dtype)


def pixel_norm(x: Tensor, *, eps: float = 1e-4) -> Tensor:
    """Unit magnitude over the channels, dimension 1, of every pixel."""
    return normalize(x, dim=1, eps=eps)


def mp_silu(x: Tensor) -> Tensor:
    """``silu(x) / 0.596``."""
    return F.silu(x) / _SILU_MAGNITUDE


def mp_sum(a: Tensor, b: Tensor, *, t: float = 0.5) -> Tensor:
    """``((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)``."""
    return torch.lerp(a, b, t) / math.hypot(1.0 - t, t)


def mp_cat(a: Tensor, b: Tensor, *, t: float = 0.5) -> Tensor:
    """Channels of a and b, dimension 1, of which b contributes the share t to the magnitude.

    With N_a and N_b channels, ``C = sqrt((N_a + N_b) / ((1 - t)^2 + t^2))``:
    ``[a C (1 - t) / sqrt(N_a), b C t / sqrt(N_b)]``.
    """
    of_a, of_b = a.shape[1], b.shape[1]
    scale = math.sqrt(of_a + of_b) / math.hypot(1.0 - t, t)
    parts = scale * (1.0 - t) / math.sqrt(of_a) * a, scale * t / math.sqrt(of_b) * b
    return torch.cat(parts, dim=1)


class MPFourier(nn.Module):
    """Random features ``sqrt(2) cos(c f + phi)``: f ~ 2 pi bandwidth N(0, 1), phi ~ 2 pi U(0, 1).

    Frequencies and phases are fixed, and stored with the factor 2 pi. Phases are computed in
    float32 (or float64 for a float64 c) under autocast too.

    Args:
        channels: Length of the vectors.
        bandwidth: Standard deviation of the frequencies in periods per unit of c, > 0.

    Raises:
        ValueError: The bandwidth is not positive.
    """

    freqs: Tensor
    phases: Tensor

    def __init__(self, channels: int, *, bandwidth: float = 1.0) -> None:
        super().__init__()
        if not 0.0 < bandwidth < math.inf:
            raise ValueError(f"bandwidth={bandwidth}; allowed: finite positive numbers")
        self.register_buffer("freqs", 2 * math.pi * torch.randn(channels) * bandwidth)
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels))

    def forward(self, c: Tensor) -> Tensor:
        """The vectors (B, channels) of numbers c, (B,)."""
        wide = c if c.dtype == torch.float64 else c.float()
        phase = wide[:, None] * self.freqs.to(wide) + self.phases.to(wide)
        return math.sqrt(2.0) * phase.cos()


class MPConv(nn.Module):
    """Convolution or linear layer without bias whose output rows have weights of unit norm.

    The effective weight is ``gain normalize(w) / sqrt(fan_in)``, fan_in = elements of one row of w.
    The output does not depend on the length of a row of w, so that the gradient is orthogonal to
    it and every step would lengthen w. Forced weight normalisation (:meth:`before_step`) stops
    that; then the learning rate is the angle by which a step turns w.

    Args:
        kernel: Odd width of the convolution; 0 = a linear layer.

    Source: Karras et al. 2024, arXiv 2312.02696, equation 47 and algorithm 1. There the forward
        pass in training mode replaces w. Here the training loop does, once before a step: the same
        numbers with one pass a step, and no pass changes weights, as further passes of a step (the
        targets of consistency training, JVPs, micro-batches) must not.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int) -> None:
        super().__init__()
        shape = (out_channels, in_channels, *([kernel, kernel] if kernel else []))
        self.weight = nn.Parameter(torch.randn(shape))

    @torch.no_grad()
    def before_step(self) -> None:
        """Forced weight normalisation: ``w <- normalize(w)``, in place."""
        self.weight.copy_(normalize(self.weight))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Map x, (B, in_channels) or (B, in_channels, H, W); ``gain`` scales the output."""
        fan_in = self.weight[0].numel()
        weight = (normalize(self.weight) * (gain / math.sqrt(fan_in))).to(x.dtype)
        if weight.ndim == 2:
            return F.linear(x, weight)
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)
