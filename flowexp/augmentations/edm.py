"""EDM's augmentation pipe."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor

from flowexp.augmentations.base import Augmentation, GeneratorDraws, RowDraws, Transform
from flowexp.augmentations.color import (
    Brightness,
    ColorTransform,
    Contrast,
    HueTurn,
    LumaFlip,
    Saturation,
    recolor,
)
from flowexp.augmentations.geometric import (
    FractionalShift,
    GeometricTransform,
    Rotation,
    Scaling,
    Stretching,
    resample,
)
from flowexp.augmentations.pixel import PixelTransform, QuarterTurns, WholePixelShift, XFlip, YFlip
from flowexp.requirements import Parts, Unmet, all_of, on_pixels

__all__ = ["EDMAugmentation"]


class EDMAugmentation(Augmentation):
    """Flips, turns, shifts, scalings and changes of colour, each with its own probability.

    A transform with multiplier m happens to a row with probability ``min(1, m p)``; one with
    multiplier 0 is left out: it draws nothing and has no label columns. Label columns and draws
    come in the order of the arguments, a transform's parameters before its gate. EDM trains with
    xflip = 1e8 (half of the images are mirrored, whatever p is) and 1 for yflip, scale,
    rotate_frac, aniso and translate_frac: 9 columns.

    A row whose labels are 0 is returned bit for bit. Rows are independent of each other, except
    that all images get the padding of the row that needs most, which changes the others by
    rounding. All arguments are finite and >= 0.

    Args:
        p: Probability for multiplier 1; 0.12 for CIFAR-10, 0.15 at 64 x 64.
        xflip: Multiplier of mirror images; those of the others follow.
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
            if name != "self" and not (value >= 0.0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; expected a finite number >= 0")
        self.p = float(p)
        pixel: list[PixelTransform] = [
            XFlip(xflip, p),
            YFlip(yflip, p),
            QuarterTurns(rotate_int, p),
            WholePixelShift(translate_int, p, largest=translate_int_max),
        ]
        geometric: list[GeometricTransform] = [
            Scaling(scale, p, std=scale_std),
            Rotation(rotate_frac, p, largest=rotate_frac_max),
            Stretching(aniso, p, std=aniso_std, turned=aniso_rotate_prob),
            FractionalShift(translate_frac, p, std=translate_frac_std),
        ]
        color: list[ColorTransform] = [
            Brightness(brightness, p, std=brightness_std),
            Contrast(contrast, p, std=contrast_std),
            LumaFlip(lumaflip, p),
            HueTurn(hue, p, largest=hue_max),
            Saturation(saturation, p, std=saturation_std),
        ]
        self.pixel = [transform for transform in pixel if transform.multiplier > 0]
        self.geometric = [transform for transform in geometric if transform.multiplier > 0]
        self.color = [transform for transform in color if transform.multiplier > 0]
        present: list[Transform] = [*self.pixel, *self.geometric, *self.color]
        self.augment_dim = sum(transform.columns for transform in present)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Images as they are, and a network that expects the labels."""
        name, remedy = type(self).__name__, "Use augmentation=none."
        pixels = on_pixels(parts, name=f"{name} changes images", remedy=remedy)
        yield from all_of(super().needs(parts), pixels)

    def __call__(
        self, images: Tensor, *, rng: torch.Generator, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        rows = len(images)
        return self.apply(images, GeneratorDraws(rng, rows=rows, rank=rank, world_size=world_size))

    def apply(self, images: Tensor, draws: RowDraws) -> tuple[Tensor, Tensor]:
        """Changed images and their labels, with given random numbers in the documented order."""
        if images.ndim != 4:
            raise ValueError(f"images has shape {tuple(images.shape)}; expected (B, C, H, W)")
        labels = []
        for move in self.pixel:
            images, label = move(images, draws)
            labels.append(label)
        height, width = images.shape[2:]
        moves = [transform(draws, height=height, width=width) for transform in self.geometric]
        images = _changed(images, moves, lambda inverse, later: inverse @ later, resample)
        colors = [transform(draws) for transform in self.color]
        images = _changed(images, colors, lambda matrix, later: later @ matrix, recolor)
        labels += [label for _, label in (*moves, *colors)]
        columns = [label.to(images) for label in labels]
        return images, torch.cat([images.new_zeros(len(images), 0), *columns], dim=1)

    def __repr__(self) -> str:
        return f"EDMAugmentation(p={self.p}, augment_dim={self.augment_dim})"


def _changed(
    images: Tensor,
    found: Sequence[tuple[Tensor, Tensor]],
    compose: Callable[[Tensor, Tensor], Tensor],
    change: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Images with the composed matrices applied in the rows with a label that is not 0."""
    if not found:
        return images
    rows = torch.cat([label for _, label in found], dim=1).ne(0).any(dim=1).nonzero()[:, 0]
    if len(rows) == 0:
        return images
    matrix = reduce(compose, [matrix for matrix, _ in found])
    place = rows.to(images.device)
    return images.index_copy(0, place, change(images[place], matrix[rows]))
