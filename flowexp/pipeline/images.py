"""Samples as image files: single ones, grids, and scatter plots of points."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from flowexp.data import quantize
from flowexp.files import write_atomically

__all__ = ["Images", "class_grid_image", "grid_image", "save_grid", "save_images", "scatter_image"]

_BACKGROUND = 255
_SMALL_SIDE = 32
_SHOWN_SIDE = 64
_PLOT_SIDE = 512
_PLOT_MARGIN = 0.08
_POINT_RADIUS = 1.5
_POINT_COLOUR = (31, 119, 180)
_TEXT_SIZES = (11, 16)
_TEXT_MARGIN = 6
_LONGEST_NAME = 24
_WIDE_ROW = 10


class Images(Tensor):
    """Samples as a tensor, (B, C, H, W) in [-1, 1] or points (B, 2), with ways to look at them."""

    def uint8(self) -> Tensor:
        """The 256 levels of an image file, (B, C, H, W), uint8; the rounding of every metric."""
        return quantize(self.as_subclass(Tensor))

    def pil(self) -> list[Image.Image]:
        """One PIL image per sample."""
        return [_image(image) for image in _levels(self.as_subclass(Tensor))]

    def save_grid(self, path: Path | str, *, columns: int | None = None) -> Path:
        """Write all samples as one PNG, by :func:`save_grid`."""
        return save_grid(Path(path), self.as_subclass(Tensor), columns=columns)


def save_images(directory: Path, x: Tensor, seeds: Sequence[int]) -> list[Path]:
    """Write one PNG per image, (B, 1 or 3, H, W) in [-1, 1], named by one of B seeds."""
    if len(seeds) != len(x):
        raise ValueError(f"there are {len(seeds)} seeds for {len(x)} samples")
    named = zip(_levels(x), seeds, strict=True)
    return [_save(directory / f"{seed:06d}.png", _image(image)) for image, seed in named]


def save_grid(
    path: Path,
    x: Tensor,
    *,
    columns: int | None = None,
    labels: Tensor | None = None,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Write images as one PNG; points are drawn by :func:`scatter_image`.

    With ``labels`` (B,), images get a row per class, see :func:`class_grid_image`. Without them, or
    if nearly every image has a class of its own, they are drawn by :func:`grid_image`.
    """
    if x.ndim == 2:
        image = scatter_image(x)
    elif labels is None or len(x) < 2 * len(set(labels.tolist())):
        image = grid_image(x, columns=columns)
    else:
        image = class_grid_image(x, labels, class_names=class_names, columns=columns)
    return _save(path, image)


def grid_image(x: Tensor, *, columns: int | None = None) -> Image.Image:
    """Images, (B, 1 or 3, H, W) in [-1, 1], side by side, one pixel apart.

    Tiny ones are enlarged by whole pixels. Without ``columns`` the grid is as square as possible.
    """
    levels = _levels(x)
    return _side_by_side(levels, min(len(levels), columns or math.ceil(math.sqrt(len(levels)))))


def class_grid_image(
    x: Tensor,
    labels: Tensor,
    *,
    class_names: Sequence[str] | None = None,
    columns: int | None = None,
) -> Image.Image:
    """The grid of :func:`grid_image` with one or more rows per class and its name on the left.

    Args:
        x: Images, (B, 1 or 3, H, W) in [-1, 1].
        labels: Their classes, (B,), integers; -1 = no class.
        class_names: Names of the classes 0, 1, ...; None = numbers.
        columns: Images per row; None = the size of the largest class, limited to ten or to a
            square grid.
    """
    levels, classes = _levels(x), labels.tolist()
    if len(classes) != len(levels):
        raise ValueError(f"there are {len(classes)} labels for {len(levels)} samples")
    members = {k: [i for i, own in enumerate(classes) if own == k] for k in sorted(set(classes))}
    most = max(_WIDE_ROW, math.ceil(math.sqrt(len(levels))))
    columns = columns or min(most, max(map(len, members.values())))
    blank = torch.full_like(levels[0], _BACKGROUND)
    cells: list[Tensor] = []
    names: list[str] = []
    for label, own in members.items():
        rows = math.ceil(len(own) / columns)
        cells += [levels[i] for i in own] + [blank] * (rows * columns - len(own))
        names += [_class_name(label, class_names)] + [""] * (rows - 1)
    return _with_names(_side_by_side(torch.stack(cells), columns), names)


def _class_name(label: int, class_names: Sequence[str] | None) -> str:
    if label < 0:
        return "no class"
    name = class_names[label] if class_names and label < len(class_names) else f"class {label}"
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."


def _with_names(grid: Image.Image, names: Sequence[str]) -> Image.Image:
    """A grid with a name on the left of each row."""
    height = grid.height / len(names)
    least, most = _TEXT_SIZES
    font = ImageFont.load_default(size=min(most, max(least, height / 2)))
    margin = math.ceil(max(map(font.getlength, names))) + 2 * _TEXT_MARGIN
    image = Image.new(grid.mode, (margin + grid.width, grid.height), "white")
    image.paste(grid, (margin, 0))
    draw = ImageDraw.Draw(image)
    for row, name in enumerate(names):
        middle = (margin - _TEXT_MARGIN, (row + 0.5) * height)
        draw.text(middle, name, fill="black", font=font, anchor="rm")
    return image


def _side_by_side(levels: Tensor, columns: int) -> Image.Image:
    """Images, (B, C, H, W) uint8, in rows of ``columns``, one pixel apart; small ones enlarged."""
    count, channels, height, width = levels.shape
    rows = math.ceil(count / columns)
    size = rows * (height + 1) + 1, columns * (width + 1) + 1
    canvas = torch.full((channels, *size), _BACKGROUND, dtype=torch.uint8)
    for number, image in enumerate(levels):
        row, column = divmod(number, columns)
        top, left = row * (height + 1) + 1, column * (width + 1) + 1
        canvas[:, top : top + height, left : left + width] = image
    image = _image(canvas)
    factor = max(1, round(_SHOWN_SIDE / width)) if width < _SMALL_SIDE else 1
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def scatter_image(points: Tensor) -> Image.Image:
    """Points of the plane, (B, 2), as dots; those that are not finite are left out.

    The axes have the same scale and reach just beyond the points.
    """
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points have shape {tuple(points.shape)}; expected (B, 2)")
    image = Image.new("RGB", (_PLOT_SIDE, _PLOT_SIDE), "white")
    shown = points.detach().double().cpu()
    shown = shown[shown.isfinite().all(dim=1)]
    if len(shown) == 0:
        return image
    low, high = shown.amin(dim=0), shown.amax(dim=0)
    extent = float((high - low).max().clamp(min=1e-12)) * (1.0 + 2.0 * _PLOT_MARGIN)
    unit = (shown - (low + high) / 2.0) / extent + 0.5
    draw, last, radius = ImageDraw.Draw(image), _PLOT_SIDE - 1, _POINT_RADIUS
    for x, y in (unit * last).tolist():
        box = [x - radius, last - y - radius, x + radius, last - y + radius]
        draw.ellipse(box, fill=_POINT_COLOUR)
    return image


def _levels(x: Tensor) -> Tensor:
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"samples have shape {tuple(x.shape)}; expected (B, 1 or 3, H, W)")
    return quantize(x.detach()).cpu()


def _image(levels: Tensor) -> Image.Image:
    """(C, H, W) uint8 as an image."""
    array = levels.numpy()
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0).copy())


def _save(path: Path, image: Image.Image) -> Path:
    return write_atomically(path, lambda beside: image.save(beside, format="PNG"))
