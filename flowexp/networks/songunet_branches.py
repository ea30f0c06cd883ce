"""Second branches of SongUNet: how the multi-resolution input enters and the output is gathered.

The branch modules live in the network's own ``enc`` and ``dec`` dictionaries, under EDM's names, so
that published weights load; the classes here only say which modules a level has and how they are
used.

Source: Karras et al. 2022, arXiv 2206.00364, appendix F.2; Song et al. 2021, arXiv 2011.13456.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.networks.songunet_block import UNetBlockStyle
from flowexp.networks.songunet_layers import Conv2d, GroupNorm, Init

__all__ = [
    "ENCODER_BRANCHES",
    "EncoderBranch",
    "OutputBranch",
    "ResidualEncoderBranch",
    "SkipEncoderBranch",
    "StandardEncoderBranch",
]


class EncoderBranch(ABC):
    """How the downsampled network input joins the encoder after each downsampling block."""

    @abstractmethod
    def modules(
        self, aux_channels: int, out_channels: int, *, resample_filter: Sequence[float], init: Init
    ) -> tuple[dict[str, nn.Module], int]:
        """Modules of one level by name suffix, and the channels of the branch after it."""

    @abstractmethod
    def merge(
        self, x: Tensor, aux: Tensor, *, modules: nn.ModuleDict, level: str
    ) -> tuple[Tensor, Tensor]:
        """The main features and the branch after the level."""


class StandardEncoderBranch(EncoderBranch):
    """No second branch (DDPM++)."""

    def modules(
        self, aux_channels: int, out_channels: int, *, resample_filter: Sequence[float], init: Init
    ) -> tuple[dict[str, nn.Module], int]:
        """No modules."""
        return {}, aux_channels

    def merge(
        self, x: Tensor, aux: Tensor, *, modules: nn.ModuleDict, level: str
    ) -> tuple[Tensor, Tensor]:
        """Both unchanged."""
        return x, aux


class SkipEncoderBranch(EncoderBranch):
    """The input is downsampled by the filter alone; a 1x1 convolution of it is added."""

    def modules(
        self, aux_channels: int, out_channels: int, *, resample_filter: Sequence[float], init: Init
    ) -> tuple[dict[str, nn.Module], int]:
        """``aux_down`` (filter only) and ``aux_skip`` (1x1)."""
        down = Conv2d(
            aux_channels, aux_channels, kernel=0, down=True, resample_filter=resample_filter
        )
        skip = Conv2d(aux_channels, out_channels, kernel=1, init=init)
        return {"aux_down": down, "aux_skip": skip}, aux_channels

    def merge(
        self, x: Tensor, aux: Tensor, *, modules: nn.ModuleDict, level: str
    ) -> tuple[Tensor, Tensor]:
        """X + aux_skip(down(aux)), down(aux)."""
        aux = modules[f"{level}_aux_down"](aux)
        return x + modules[f"{level}_aux_skip"](aux), aux


class ResidualEncoderBranch(EncoderBranch):
    """The branch is a residual pyramid of its own: aux = x = (x + conv(aux)) / sqrt(2) (NCSN++)."""

    def modules(
        self, aux_channels: int, out_channels: int, *, resample_filter: Sequence[float], init: Init
    ) -> tuple[dict[str, nn.Module], int]:
        """``aux_residual`` (3x3, filtered and decimated last)."""
        residual = Conv2d(
            aux_channels,
            out_channels,
            kernel=3,
            down=True,
            resample_filter=resample_filter,
            filter_last=True,
            init=init,
        )
        return {"aux_residual": residual}, out_channels

    def merge(
        self, x: Tensor, aux: Tensor, *, modules: nn.ModuleDict, level: str
    ) -> tuple[Tensor, Tensor]:
        """Both become (x + aux_residual(aux)) / sqrt(2)."""
        x = (x + modules[f"{level}_aux_residual"](aux)) / math.sqrt(2)
        return x, x


ENCODER_BRANCHES: Mapping[str, type[EncoderBranch]] = {
    "standard": StandardEncoderBranch,
    "skip": SkipEncoderBranch,
    "residual": ResidualEncoderBranch,
}


class OutputBranch:
    """Output head: out = conv(silu(norm(x))), at the finest level or summed over all levels.

    Args:
        every_level: Whether each level adds to the upsampled output of the level below
            (decoder type ``skip``), or only the finest level has a head (``standard``).
    """

    TYPES: ClassVar[Mapping[str, bool]] = {"standard": False, "skip": True}

    def __init__(self, *, every_level: bool) -> None:
        self.every_level = every_level

    def modules(
        self,
        channels: int,
        out_channels: int,
        *,
        finest: bool,
        coarsest: bool,
        style: UNetBlockStyle,
    ) -> dict[str, nn.Module]:
        """Modules of one level by name suffix."""
        if not (self.every_level or finest):
            return {}
        made: dict[str, nn.Module] = {}
        if self.every_level and not coarsest:
            made["aux_up"] = Conv2d(
                out_channels,
                out_channels,
                kernel=0,
                up=True,
                resample_filter=style.resample_filter,
            )
        made["aux_norm"] = GroupNorm(channels, eps=style.eps)
        made["aux_conv"] = Conv2d(channels, out_channels, kernel=3, init=style.init_zero)
        return made

    def gather(
        self, x: Tensor, aux: Tensor | None, *, modules: nn.ModuleDict, level: str
    ) -> Tensor | None:
        """The output so far, after the level."""
        if f"{level}_aux_conv" not in modules:
            return aux
        out: Tensor = modules[f"{level}_aux_conv"](F.silu(modules[f"{level}_aux_norm"](x)))
        return out if aux is None else out + modules[f"{level}_aux_up"](aux)
