"""The affine map between an encoder's latents z and the latents y that a flow learns."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.identity import Identified

__all__ = ["Factor", "PerChannel", "Scaling", "Statistics"]


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each channel of the latents of some data, float64.

    They are over the draws of the posteriors, so that ``std^2 = E[std_z^2] + Var[mean_z]``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Scaling(Identified, ABC):
    """``y = (z - m) / s * c`` and its inverse ``z = y s / c + m``, per channel.

    Attributes:
        measures: Whether m and s are the statistics of the training data.
        channels: How many channels the constants are for; None = any.
    """

    measures: bool = False
    channels: int | None = None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of y in each channel; None = it depends on the data."""
        return None

    @abstractmethod
    def constants(self, statistics: Statistics | None) -> tuple[Sequence[float], Sequence[float]]:
        """``(m, s / c)``, each of one number for all channels or one per channel.

        ``statistics`` are those of the training data; only needed if it ``measures``.
        """

    def scaled(self, z: Tensor, statistics: Statistics | None) -> Tensor:
        """Latents y of the flow, of z, (B, C, h, w)."""
        shift, width = self._columns(z, statistics)
        return (z - shift) / width

    def spread(self, std: Tensor, statistics: Statistics | None) -> Tensor:
        """The standard deviation of y of that of z, (B, C, h, w)."""
        return std / self._columns(std, statistics)[1]

    def unscaled(self, y: Tensor, statistics: Statistics | None) -> Tensor:
        """The encoder's latents z of y, (B, C, h, w)."""
        shift, width = self._columns(y, statistics)
        return y * width + shift

    def _columns(self, like: Tensor, statistics: Statistics | None) -> tuple[Tensor, Tensor]:
        shift, width = (
            torch.tensor(values, dtype=like.dtype, device=like.device).reshape(-1, 1, 1)
            for values in self.constants(statistics)
        )
        if len(shift) not in (1, like.shape[1]):
            raise ValueError(
                f"the scaling has {len(shift)} channels, but the latents have {like.shape[1]}"
            )
        return shift, width


class Factor(Scaling):
    """``y = factor (z - shift)``, the same for all channels.

    Args:
        factor: 0.18215 for the VAE of Stable Diffusion (LFM, DiT, SiT, REPA, MeanFlow); > 0.
        shift: Subtracted before; 0.1159 for that of FLUX.

    Raises:
        ValueError: factor is not positive.

    Source: Rombach et al., 2021, arXiv 2112.10752, appendix G; Dao et al., LFM, 2023,
    arXiv 2307.08698, and the authors' train_flow_latent.py.
    """

    def __init__(self, factor: float, *, shift: float = 0.0) -> None:
        if not factor > 0.0:
            raise ValueError(f"factor is {factor}; allowed: positive numbers")
        self.factor = factor
        self.shift = shift

    def constants(self, statistics: Statistics | None) -> tuple[Sequence[float], Sequence[float]]:
        return [self.shift], [1.0 / self.factor]


class PerChannel(Scaling):
    """``y = (z - mean) / std * multiplier``, so that every channel has the width ``multiplier``.

    Args:
        mean: One number per channel; None = measured once on the training data, with ``std``.
        std: The same, > 0.
        multiplier: c, > 0: 0.5 in EDM2 and IMM, 1 in TVM and LightningDiT.

    Raises:
        ValueError: A number is out of range, or only one of mean and std is given.

    Source: Karras et al., EDM2, 2023, arXiv 2312.02696, and NVlabs/edm2, training/encoders.py.
    """

    def __init__(
        self,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        multiplier: float = 1.0,
    ) -> None:
        if (mean is None) != (std is None) or (mean and std and len(mean) != len(std)):
            raise ValueError("mean and std must both be null, or have one number per channel")
        if std is not None and not all(s > 0.0 for s in std):
            raise ValueError(f"std is {list(std)}; allowed: positive numbers")
        if not multiplier > 0.0:
            raise ValueError(f"multiplier is {multiplier}; allowed: positive numbers")
        self.mean = mean
        self.std = std
        self.multiplier = multiplier
        self.measures = mean is None
        self.channels = None if mean is None else len(mean)

    @property
    def deviation(self) -> float:
        """``multiplier``, if mean and std are those of the data."""
        return self.multiplier

    def constants(self, statistics: Statistics | None) -> tuple[Sequence[float], Sequence[float]]:
        mean, std = self.mean, self.std
        if mean is None or std is None:
            if statistics is None:
                raise ValueError("the latents of the training data have not been measured yet")
            mean, std = statistics.mean, statistics.std
        return mean, [s / self.multiplier for s in std]
