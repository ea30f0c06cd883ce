"""The one place where per-sample coefficients meet samples."""

from torch import Tensor

__all__ = ["expand_as"]


def expand_as(coefficient: Tensor, x: Tensor) -> Tensor:
    """A scalar or (B,) coefficient as (B, 1, ..., 1), in the dtype and on the device of ``x``.

    Args:
        coefficient: Scalar or (B,), usually float64.
        x: (B, ...) tensor it will be multiplied with.

    Raises:
        ValueError: The coefficient is neither a scalar nor of the batch's size.
    """
    c = coefficient.to(device=x.device, dtype=x.dtype)
    if c.ndim == 0:
        return c
    if c.ndim != 1 or c.shape[0] not in (1, x.shape[0]):
        raise ValueError(f"coefficient has shape {tuple(c.shape)}; expected () or ({x.shape[0]},)")
    return c.reshape(-1, *([1] * (x.ndim - 1)))
