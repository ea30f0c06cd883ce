"""Points of the plane from known distributions, scaled to standard deviation 1/2 per axis.

Mean and variance of each distribution are known, so all splits and sizes share one scaling; 1/2 is
the ``sigma_data`` that EDM's preconditioning assumes. Points are data x without conversion.
"""

import math
from abc import abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from flowexp.data.base import ImageArrays, SplitDataset
from flowexp.seeding import generator, open_uniform

__all__ = ["Checkerboard", "EightGaussians", "SwissRoll", "TwoMoons"]

_DEVIATION = 0.5


class _Toy2d(SplitDataset):
    """Points of one distribution.

    Args:
        size: Points for training.
        heldout_size: Points held out.
        noise: Standard deviation of the normal noise added to the unscaled points.
        data_seed: Seed of the draw; the run's seed does not change the data.
        dim: 2.
        num_classes: Number of modes, whose index is the label; 0 without modes.
        hflip: False; points have no left and right.
    """

    modes: int

    def __init__(
        self,
        *,
        size: int = 50_000,
        heldout_size: int = 10_000,
        noise: float = 0.0,
        data_seed: int = 0,
        dim: int = 2,
        num_classes: int,
        hflip: bool = False,
    ) -> None:
        super().__init__(name=self._name(), shape=(dim,), num_classes=num_classes, hflip=hflip)
        self._require("dim", dim, [2])
        self._require_declared(num_classes=[self.modes], hflip=[False])
        if size < 1 or heldout_size < 1:
            raise ValueError(
                f"size and heldout_size must be at least 1, but are {size} and {heldout_size}"
            )
        if not (noise >= 0 and math.isfinite(noise)):
            raise ValueError(f"noise must be finite and not negative, but is {noise}")
        self.size = size
        self.heldout_size = heldout_size
        self.noise = noise
        self.data_seed = data_seed

    @classmethod
    def _name(cls) -> str:
        return "".join(f"_{c.lower()}" if c.isupper() else c for c in cls.__name__).lstrip("_")

    def locate(self) -> None:
        """Always possible: the points are drawn."""

    @abstractmethod
    def _draw(self, count: int, *, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Unscaled points without noise, (count, 2), float64, and their modes."""

    @abstractmethod
    def _moments(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Mean and variance per axis of the unscaled points without noise."""

    def _split(self, split: str) -> ImageArrays:
        count = self.size if split == "train" else self.heldout_size
        rng = generator(self.data_seed, f"{self.name}/{split}")
        points, labels = self._draw(count, rng=rng)
        points = points + self.noise * torch.randn(points.shape, generator=rng, dtype=torch.float64)
        mean, variance = torch.tensor(self._moments(), dtype=torch.float64)
        points = (points - mean) * (_DEVIATION / (variance + self.noise**2).sqrt())
        classes = None if labels is None else labels.numpy().astype(np.int64)
        return self._arrays(points.to(torch.float32).numpy(), classes, split=split)


class EightGaussians(_Toy2d):
    """Eight equally likely normal distributions on the unit circle; label = which one."""

    modes = 8

    def _draw(self, count: int, *, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        labels = torch.randint(0, self.modes, (count,), generator=rng)
        angle = labels.double() * (2 * math.pi / self.modes)
        return torch.stack([angle.cos(), angle.sin()], dim=1), labels

    def _moments(self) -> tuple[tuple[float, float], tuple[float, float]]:
        return (0.0, 0.0), (0.5, 0.5)


class TwoMoons(_Toy2d):
    """Two interleaved half circles; label = upper (0) or lower (1)."""

    modes = 2

    def _draw(self, count: int, *, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        labels = torch.randint(0, self.modes, (count,), generator=rng)
        angle = math.pi * open_uniform((count,), rng=rng)
        upper = torch.stack([angle.cos(), angle.sin()], dim=1)
        lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=1)
        return torch.where(labels[:, None] == 0, upper, lower), labels

    def _moments(self) -> tuple[tuple[float, float], tuple[float, float]]:
        sine = 2 / math.pi
        between = ((sine - (0.5 - sine)) / 2) ** 2
        return (0.5, 0.25), (0.75, 0.5 - sine**2 + between)


class Checkerboard(_Toy2d):
    """The eight black squares of a 4 x 4 board, uniformly filled; label = which square."""

    modes = 8

    def _draw(self, count: int, *, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        labels = torch.randint(0, self.modes, (count,), generator=rng)
        row = labels // 2
        corner = torch.stack([2 * (labels % 2) + row % 2, row], dim=1)
        return corner + open_uniform((count, 2), rng=rng), labels

    def _moments(self) -> tuple[tuple[float, float], tuple[float, float]]:
        return (2.0, 2.0), (16 / 12, 16 / 12)


class SwissRoll(_Toy2d):
    """A spiral (a cos a, a sin a), a uniform in [3 pi / 2, 9 pi / 2]; no labels."""

    modes = 0

    _ends = (1.5 * math.pi, 4.5 * math.pi)

    def _draw(self, count: int, *, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        low, high = self._ends
        angle = low + (high - low) * open_uniform((count,), rng=rng)
        return torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1), None

    def _moments(self) -> tuple[tuple[float, float], tuple[float, float]]:
        low, high = self._ends

        def mean_of(antiderivative: Callable[[float], float]) -> float:
            return (antiderivative(high) - antiderivative(low)) / (high - low)

        # antiderivatives of a cos a, a sin a, a^2 / 2 and a^2 cos(2 a) / 2
        x = mean_of(lambda a: math.cos(a) + a * math.sin(a))
        y = mean_of(lambda a: math.sin(a) - a * math.cos(a))
        square = mean_of(lambda a: a**3 / 6)
        wave = mean_of(lambda a: (a**2 / 4 - 1 / 8) * math.sin(2 * a) + a / 4 * math.cos(2 * a))
        return (x, y), (square + wave - x**2, square - wave - y**2)
