"""Crops and resizes pictures of any size to square images of one size.

Every function takes a picture in mode L or RGB, the resolution in pixels and a background colour,
and returns an image of the same mode. A picture that already has the size is unchanged.
"""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from flowexp.data.image_decoding import Colour, NotDecodedError

__all__ = ["CROPS", "Crop", "adm", "center", "none", "pad"]


@dataclass(frozen=True)
class Crop:
    """A way to make pictures square.

    Attributes:
        make: The function.
        fitted: ``min`` or ``max``, the side of a picture that is resized to the resolution.
    """

    make: Callable[[Image.Image, int, Colour], Image.Image]
    fitted: Callable[[tuple[int, int]], int] = min


def center(image: Image.Image, resolution: int, background: Colour) -> Image.Image:
    """The largest central square, resized by a Lanczos filter.

    Source: ``center-crop`` of Karras et al. 2022 (arXiv 2206.00364), dataset_tool.py.
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return _resized(image.crop((left, top, left + side, top + side)), resolution)


def adm(image: Image.Image, resolution: int, background: Colour) -> Image.Image:
    """ADM's centre crop: box-filtered halving, then bicubic resizing, then a central crop.

    Most published ImageNet results use it.

    Source: Dhariwal, Nichol 2021 (arXiv 2105.05233), image_datasets.py, ``center_crop_arr``; EDM
    calls it ``center-crop-dhariwal``.
    """
    while min(image.size) >= 2 * resolution:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = resolution / min(image.size)
    size = round(image.width * scale), round(image.height * scale)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (image.width - resolution) // 2, (image.height - resolution) // 2
    return image.crop((left, top, left + resolution, top + resolution))


def pad(image: Image.Image, resolution: int, background: Colour) -> Image.Image:
    """The whole picture, resized by a Lanczos filter, centred on a square background."""
    side = max(image.size)
    scale = resolution / side
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    behind = Image.new("RGB", (resolution, resolution), background).convert(image.mode)
    inner = image.resize(size, Image.Resampling.LANCZOS)
    behind.paste(inner, ((resolution - size[0]) // 2, (resolution - size[1]) // 2))
    return behind


def none(image: Image.Image, resolution: int, background: Colour) -> Image.Image:
    """The picture, which must be square, resized by a Lanczos filter.

    Raises:
        NotDecodedError: It is not square.
    """
    if image.width != image.height:
        raise NotDecodedError(f"is {image.width}x{image.height}, not square, with crop=none")
    return _resized(image, resolution)


def _resized(image: Image.Image, resolution: int) -> Image.Image:
    return image.resize((resolution, resolution), Image.Resampling.LANCZOS)


CROPS = {"adm": Crop(adm), "center": Crop(center), "none": Crop(none), "pad": Crop(pad, max)}
"""The crops by their names in ``flowexp prepare crop=NAME``."""
