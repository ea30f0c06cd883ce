"""Transformations of a trained network's weights before evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowexp.errors import UsageError

__all__ = ["Quantize", "Unchanged", "WeightTransform", "quantized"]

_LARGEST_BITS = 16


class WeightTransform(ABC):
    """A change of a loaded network, in place; a test of robustness, not a training method."""

    @abstractmethod
    def __call__(self, network: nn.Module) -> str:
        """Change the network's weights in place; returns a description, "" for no change."""


class Unchanged(WeightTransform):
    """Unchanged weights."""

    def __call__(self, network: nn.Module) -> str:
        return ""


@dataclass(kw_only=True)
class Quantize(WeightTransform):
    """Weights rounded to ``2^bits`` levels between the smallest and the largest of their tensor.

    A parameter is changed if its name contains ``include`` and none of ``exclude``. The defaults
    are the authors': in their networks "32" excludes every layer of the 32 x 32 level, the first
    and the last convolution among them.

    Args:
        bits: Bits per weight, 2 .. 16 (5 .. 9 as published).
        include: What the name must contain.
        exclude: What it must not contain.

    Raises:
        ValueError: bits is out of range.

    Source: Xu et al., PFGM++, 2023, arXiv 2302.04265, section 5.2; Newbeeer/pfgmpp,
    generate_quant.py.
    """

    bits: int
    include: str = "weight"
    exclude: Sequence[str] = ("norm", "affine", "map", "32")

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= _LARGEST_BITS:
            raise ValueError(f"bits is {self.bits}; expected an integer from 2 to {_LARGEST_BITS}")

    def __call__(self, network: nn.Module) -> str:
        """Quantise in place.

        Raises:
            UsageError: No parameter of this network is selected.
        """
        chosen = [p for name, p in network.named_parameters() if self.selects(name)]
        if not chosen:
            raise UsageError(
                f"no parameter name of {type(network).__name__} contains {self.include!r} and "
                f"none of {list(self.exclude)}.",
                key="weight_transform.exclude",
                remedy="Exclude other names, e.g. weight_transform.exclude=[norm].",
            )
        with torch.no_grad():
            for parameter in chosen:
                parameter.copy_(quantized(parameter, bits=self.bits)[0])
        return f"{len(chosen)} weight tensors at {self.bits} bits"

    def selects(self, name: str) -> bool:
        """Whether the parameter of this name is quantised."""
        return self.include in name and not any(part in name for part in self.exclude)


def quantized(w: Tensor, *, bits: int) -> tuple[Tensor, int]:
    """``s (round(clip(z + w/s, 0, 2^bits - 1)) - z)`` and the zero point z.

    ``s = (max - min)/(2^bits - 1)`` and ``z = trunc(clip(-min/s, 0, 2^bits - 1))``. A constant
    tensor is returned as it is.
    """
    levels = float(2**bits - 1)
    smallest, largest = w.min(), w.max()
    scale = (largest - smallest) / levels
    if float(scale) == 0.0:
        return w.clone(), 0
    zero = int((-smallest / scale).clamp(0.0, levels))
    steps = torch.round((zero + w / scale).clamp(0.0, levels))
    return scale * (steps - zero), zero
