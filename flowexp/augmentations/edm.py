"""EDM's augmentation pipe."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from flowexp.augmentations.base import Augmentation
from flowexp.augmentations.color import (
    Brightness,
    ColorTransform,
    Contrast,
    HueTurn,
    LumaFlip,
    Saturation,
    recolor,
)
from flowexp.augmentations.draws import Draws, GeneratorDraws
from flowexp.augmentations.geometric import (
    FractionalShift,
    GeometricTransform,
    Rotation,
    Scaling,
    Stretching,
)
from flowexp.augmentations.pixel import (
    PixelTransform,
    QuarterTurns,
    WholePixelShift,
    XFlip,
    YFlip,
)
from flowexp.augmentations.resampling import resample
from flowexp.requirements import Parts, Unmet, all_of, of_pictures

__all__ = ["EDMAugmentation"]


class EDMAugmentation(Augmentation):
    """Flips, turns, shifts, scalings and changes of colour, each with a probability of its own.

    A transform with multiplier m happens to a row with probability ``min(1, m p)``; one with
    multiplier 0 does not exist: it draws nothing and has no label columns. Label columns and draws
    come in the order of the arguments, a transform's parameters before its gate. What EDM trains
    with is xflip = 1e8 (always tried, so that one half of the pictures is mirrored whatever p) and
    1 for yflip, scale, rotate_frac, aniso and translate_frac: 9 columns.

    A row whose labels are 0 is returned bit for bit. Rows are independent of each other, except
    that pictures are padded as far as the row that reaches furthest needs, which changes the others
    by rounding.

    Args:
        p: Probability that the multipliers multiply, >= 0; 0.12 for CIFAR-10, 0.15 at 64 x 64.
        xflip: Mirror images.
        yflip: Upside-down images.
        rotate_int: Quarter turns.
        translate_int: Shifts by whole pixels.
        scale: Magnification.
        rotate_frac: Rotation.
        aniso: Stretching along a random axis.
        translate_frac: Shifts by fractions of pixels.
        brightness: Addition to all channels.
        contrast: Multiplication of all channels.
        lumaflip: Negative luma with colours kept.
        hue: Turns of the colour circle.
        saturation: Multiplication of colours with luma kept.
        translate_int_max: Largest whole-pixel shift as a share of the size.
        scale_std: Standard deviation of the magnification's binary logarithm.
        rotate_frac_max: Largest rotation in half turns.
        aniso_std: Standard deviation of the stretching's binary logarithm.
        aniso_rotate_prob: Share of rows that are stretched along an axis other than x.
        translate_frac_std: Standard deviation of shifts as a share of the size.
        brightness_std: Standard deviation of the addition.
        contrast_std: Standard deviation of the contrast's binary logarithm.
        hue_max: Largest turn in half turns.
        saturation_std: Standard deviation of the saturation's binary logarithm.

    Raises:
        ValueError: A number is negative or not finite.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, appendix F.2 and table 6; transforms of
    Karras et al., 2020, arXiv 2006.06676. The order of transforms and draws is that of EDM's code.
    """

    def __init__(
        self,
        *,
        p: float,
        xflip: float = 0.0,
        yflip: float = 0.0,
        rotate_int: float = 0.0,
        translate_int: float = 0.0,
        scale: float = 0.0,
        rotate_frac: float = 0.0,
        aniso: float = 0.0,
        translate_frac: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        lumaflip: float = 0.0,
        hue: float = 0.0,
        saturation: float = 0.0,
        translate_int_max: float = 0.125,
        scale_std: float = 0.2,
        rotate_frac_max: float = 1.0,
        aniso_std: float = 0.2,
        aniso_rotate_prob: float = 0.5,
        translate_frac_std: float = 0.125,
        brightness_std: float = 0.2,
        contrast_std: float = 0.5,
        hue_max: float = 1.0,
        saturation_std: float = 1.0,
    ) -> None:
        for name, value in list(locals().items()):
            if name not in ("self", "__class__"):
                _require_amount(name, value)
        self.p = float(p)
        pixel: list[tuple[float, PixelTransform]] = [
            (xflip, XFlip(probability=xflip * p)),
            (yflip, YFlip(probability=yflip * p)),
            (rotate_int, QuarterTurns(probability=rotate_int * p)),
            (
                translate_int,
                WholePixelShift(probability=translate_int * p, largest=translate_int_max),
            ),
        ]
        geometric: list[tuple[float, GeometricTransform]] = [
            (scale, Scaling(probability=scale * p, std=scale_std)),
            (rotate_frac, Rotation(probability=rotate_frac * p, largest=rotate_frac_max)),
            (aniso, Stretching(probability=aniso * p, std=aniso_std, turned=aniso_rotate_prob)),
            (
                translate_frac,
                FractionalShift(probability=translate_frac * p, std=translate_frac_std),
            ),
        ]
        color: list[tuple[float, ColorTransform]] = [
            (brightness, Brightness(probability=brightness * p, std=brightness_std)),
            (contrast, Contrast(probability=contrast * p, std=contrast_std)),
            (lumaflip, LumaFlip(probability=lumaflip * p)),
            (hue, HueTurn(probability=hue * p, largest=hue_max)),
            (saturation, Saturation(probability=saturation * p, std=saturation_std)),
        ]
        self.pixel = [transform for multiplier, transform in pixel if multiplier > 0]
        self.geometric = [transform for multiplier, transform in geometric if multiplier > 0]
        self.color = [transform for multiplier, transform in color if multiplier > 0]
        present: list[PixelTransform | GeometricTransform | ColorTransform]
        present = [*self.pixel, *self.geometric, *self.color]
        self.augment_dim = sum(transform.columns for transform in present)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Pictures, and a network that expects the labels."""
        pictures = of_pictures(parts, name=type(self).__name__, remedy="Use augmentation=none.")
        yield from all_of(super().needs(parts), pictures)

    def __call__(
        self, images: Tensor, *, rng: torch.Generator, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Changed pictures and their labels; see :class:`Augmentation`."""
        rows = len(images)
        return self.apply(images, GeneratorDraws(rng, rows=rows, rank=rank, world_size=world_size))

    def apply(self, images: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Changed pictures and their labels, with random numbers from anywhere.

        Args:
            images: (B, C, H, W), floating, in [-1, 1].
            draws: The random numbers, asked for in the documented order.

        Raises:
            ValueError: The data are not pictures.
        """
        if images.ndim != 4:
            raise ValueError(f"images has shape {tuple(images.shape)}; expected (B, C, H, W)")
        labels = []
        for move in self.pixel:
            images, label = move(images, draws)
            labels.append(label)
        images = self._resampled(images, draws, labels)
        images = self._recolored(images, draws, labels)
        columns = [label.to(images) for label in labels]
        return images, torch.cat([images.new_zeros(len(images), 0), *columns], dim=1)

    def _resampled(self, images: Tensor, draws: Draws, labels: list[Tensor]) -> Tensor:
        """The geometric transforms, composed, in the rows that have any; appends their labels."""
        height, width = images.shape[2:]
        found = [transform(draws, height=height, width=width) for transform in self.geometric]
        if not found:
            return images
        inverse = found[0][0]
        for matrix, _ in found[1:]:
            inverse = inverse @ matrix
        labels += [label for _, label in found]
        rows = _changed([label for _, label in found])
        if len(rows) == 0:
            return images
        return _replaced(images, rows, resample(images[rows.to(images.device)], inverse[rows]))

    def _recolored(self, images: Tensor, draws: Draws, labels: list[Tensor]) -> Tensor:
        """The colour transforms, composed, in the rows that have any; appends their labels."""
        found = [transform(draws) for transform in self.color]
        if not found:
            return images
        matrix = found[0][0]
        for later, _ in found[1:]:
            matrix = later @ matrix
        labels += [label for _, label in found]
        rows = _changed([label for _, label in found])
        if len(rows) == 0:
            return images
        return _replaced(images, rows, recolor(images[rows.to(images.device)], matrix[rows]))

    def __repr__(self) -> str:
        return f"EDMAugmentation(p={self.p}, augment_dim={self.augment_dim})"


def _changed(labels: Sequence[Tensor]) -> Tensor:
    """Rows with a label that is not 0."""
    return torch.cat(list(labels), dim=1).ne(0).any(dim=1).nonzero()[:, 0]


def _replaced(images: Tensor, rows: Tensor, changed: Tensor) -> Tensor:
    return images.index_copy(0, rows.to(images.device), changed)


def _require_amount(name: str, value: float) -> None:
    if not (value >= 0.0 and math.isfinite(value)):
        raise ValueError(f"{name} is {value}; expected a finite number >= 0")
