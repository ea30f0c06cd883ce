"""Image files as pixels: which files count as images, and the only function that decodes them.

The rule, for training sets, reference sets and frames alike: the first frame of a file, upright by
its EXIF orientation, with 8 bits a channel, grey (L) or colour (RGB). A deeper image keeps its
range: of 16 bits, white is 65535 and a level is ``round(v * 255 / 65535)`` (in colour Pillow's own
``v // 256``, at most one level off); floating values reach from 0 to 1. Nothing is guessed: an
image with transparent pixels has no colour there unless it is laid on a background, and wide
integers or floats outside their range have no known white, so they are not decoded.
"""

import functools
import io
import logging
import posixpath
import re
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

__all__ = ["GREY_MODES", "SUFFIXES", "NotDecodedError", "decode_image", "is_hidden", "is_image",
           "plain_image", "planes", "say_once", "what_is_left_out"]  # fmt: skip

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".apng",
)  # fmt: skip
"""What is taken for an image, in any case; written out, so that a set of files is the same data
whichever formats an installation of Pillow supports."""

VERSION = 2
"""Raised when the pixels of some file change, so that no older decoding is read from a cache."""

_SEVERAL_FRAMES = (".gif", ".tif", ".tiff", ".apng")
_SHOWN_NAMES = 3
_SHOWN_KINDS = 6

GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
"""Pillow's modes of grey images; one with a palette, P, may be grey as well."""

_ALPHA = ("LA", "PA", "RGBA")
_WHITE_16 = 65535
_BITS, _PHOTOMETRIC = 258, 262
"""Tags of TIFF: bits per sample, and whether 0 is black (1) or white (0)."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LOG = logging.getLogger(__name__)


class NotDecodedError(ValueError):
    """Why a file gives no pixels, as the end of a sentence that begins with its name."""


Colour = tuple[int, int, int]


def decode_image(
    content: bytes, *, channels: int | None = None, background: Colour | None = None
) -> Image.Image:
    """The image in a file's bytes by the rule above, in mode L or RGB.

    An image with a palette of greys is grey, unless ``channels`` is 3; any other keeps its kind.
    ``background`` is the colour (R, G, B) behind transparent pixels, each 0 to 255.

    Raises:
        NotDecodedError: The bytes are no image or damaged, or a pixel has no known colour.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return plain_image(image, channels=channels, background=background)
    except NotDecodedError:
        raise
    except UnidentifiedImageError as error:
        # Pillow's message is the address of the buffer.
        raise NotDecodedError("is damaged (its bytes are no image)") from error
    except Exception as error:  # on damaged bytes Pillow's plugins raise nearly anything
        raise NotDecodedError(f"is damaged ({reason(error)})") from error


def plain_image(
    image: Image.Image, *, channels: int | None = None, background: Colour | None = None
) -> Image.Image:
    """Decode an image that Pillow has opened, by the rules of :func:`decode_image`.

    Raises:
        NotDecodedError: A pixel has no known colour.
    """
    return _plain(_upright(image), channels, background)


def planes(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The pixels of an image in mode L or RGB, (C, H, W)."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def reason(error: Exception) -> str:
    """An error in words, without the addresses of objects."""
    text = re.sub(r"<[\w.]+ object at 0x[0-9a-fA-F]+>", "the file", str(error))
    return text.strip() or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; unreadable EXIF says nothing about the pixels."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the parsers of EXIF and XMP raise nearly anything
        turn = None
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image, channels: int | None, background: Colour | None) -> Image.Image:
    mode = image.mode
    # A GIF with all greys is opened as L.
    has_palette = mode in ("P", "PA") or image.format == "GIF"
    if mode in ("L", "RGB") and not has_palette:
        return image.copy()
    if mode in _ALPHA or (mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            if background is None:
                raise NotDecodedError(
                    f"has mode {mode} with transparent pixels, whose colour is not known (lay the "
                    "image on a background)"
                )
            behind = Image.new("RGBA", image.size, (*background, 255))
            image = Image.alpha_composite(behind, image)
    if mode.startswith(("I", "F")):
        return _levels(image)
    if mode in ("1", "LA"):
        return image.convert("L")
    colour = image.convert("RGB")
    grey = colour.getchannel(0)
    if has_palette and channels != 3:
        if all(colour.getchannel(k).tobytes() == grey.tobytes() for k in (1, 2)):
            return grey
    return colour


def _levels(image: Image.Image) -> Image.Image:
    """Grey values of more than 8 bits as the nearest of 256 levels."""
    mode, values = image.mode, np.asarray(image).astype(np.float64)
    tags = getattr(image, "tag_v2", {})  # of a TIFF, whose samples may have fewer bits than 16
    white = 1 if mode == "F" else (1 << tags.get(_BITS, (16,))[0]) - 1
    if mode in ("I", "F"):
        # Pillow keeps greys of 16 bits in 32, and integers below 256 may as well be 8-bit levels.
        low, high = values.min(), values.max()
        white = min(white, _WHITE_16)
        stated = mode == "F" or image.format == "PPM" or not 0 < high <= 255
        if not (0 <= low and high <= white and stated):
            raise NotDecodedError(
                f"has mode {mode} with values from {low:g} to {high:g}, whose white is not known "
                "(save it with 8 or 16 bits a channel)"
            )
    elif tags.get(_PHOTOMETRIC) == 0:  # Pillow does not turn these round, as it does 8-bit images
        values = white - values
    return Image.fromarray(np.rint(values * (255.0 / white)).astype(np.uint8))


def is_hidden(name: str) -> bool:
    """Whether file managers hide a file or a folder above it, as they do thumbnails."""
    parts = posixpath.normpath(name.replace("\\", "/")).split("/")
    return any(part.startswith((".", "__MACOSX")) for part in parts if part not in (".", ".."))


def is_image(name: str) -> bool:
    """Whether a file is read, by its name with ``/`` between folders."""
    return not is_hidden(name) and name.lower().endswith(SUFFIXES)


def what_is_left_out(
    place: object,
    names: Iterable[str],
    *,
    kept: Collection[str],
    known: Collection[str] = (),
    lost: Collection[str] = (),
) -> str | None:
    """A sentence on the files of a place that are not ``kept``, by kind; None if it says nothing.

    ``known`` are files that are read otherwise, ``lost`` no files at all: folders, broken links. It
    also says what is done with several frames.
    """
    kinds: dict[str, list[str]] = {}
    for name in sorted(set(names) - set(kept) - set(known)):
        suffix = posixpath.splitext(name)[1].lower()
        kind = "hidden" if is_hidden(name) else suffix or "without a suffix"
        kind = "no file or a broken link" if name in lost else kind
        kinds.setdefault(kind, []).append(name)
    several = sorted({s for s in _SEVERAL_FRAMES if any(n.lower().endswith(s) for n in kept)})
    if not kinds and not several:
        return None
    common = sorted(kinds.items(), key=lambda item: -len(item[1]))
    parts = [f"{len(members)} {kind} ({_some(members)})" for kind, members in common[:_SHOWN_KINDS]]
    if rest := sum(len(members) for _, members in common[_SHOWN_KINDS:]):
        parts.append(f"{rest} of other kinds")
    said = f"{place}: {len(kept)} images are read"
    if parts:
        count = sum(map(len, kinds.values()))
        left = "1 file is" if count == 1 else f"{count} files are"
        said += f", {left} left out: {', '.join(parts)}"
    if several:
        said += f"; of a {' or '.join(several)} file with several frames, the first is read"
    return f"{said}."


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more


@functools.cache
def say_once(sentence: str) -> None:
    """Warn, once in a process however often the same data are opened."""
    _LOG.warning("%s", sentence)
