"""Config values that follow from a set of images: resolution, channels, labels and class names.

``conf/dataset/image_folder.yaml`` uses them with ``${derived:...}``. They are read from the list of
files, the labels, and the headers of some images, without importing torch. A stored config holds
the values.
"""

import functools
import io
import os
from pathlib import Path

from PIL import Image

from flowexp.data.image_decoding import GREY_MODES
from flowexp.data.image_files import ImageFiles, open_images, prepare_command
from flowexp.data.image_labels import LabelsOfImages
from flowexp.data.locations import find_images
from flowexp.errors import UsageError

__all__ = ["channels", "class_names", "num_classes", "resolution", "use_labels"]

_KEY = "dataset.archive"
_LOOKED_AT = 64
_REMEMBERED = 8


def resolution(archive: str) -> int:
    """The width of square images of one size, in pixels.

    Raises:
        UsageError: There is no such folder or ZIP; or the images have several sizes, and the remedy
            is the command that prepares them.
    """
    files = _opened(archive)
    sizes = sorted({size for size, _ in _headers(files)})
    if len(sizes) == 1 and sizes[0][0] == sizes[0][1]:
        return sizes[0][0]
    some = ", ".join(f"{width}x{height}" for width, height in sizes[:3])
    many = "one size" if len(sizes) == 1 else f"{len(sizes)} sizes"
    raise _unlike(files, f"{many} ({some}{', ...' if len(sizes) > 3 else ''})")


def channels(archive: str) -> int:
    """1 if the images are grey, 3 if they are in colour.

    Raises:
        UsageError: As in :func:`resolution`; or some are grey and some in colour.
    """
    files = _opened(archive)
    kinds = {mode in GREY_MODES for _, mode in _headers(files) if mode != "P"}
    if len(kinds) > 1:
        raise _unlike(files, "grey and coloured ones among them")
    # A palette may be all grey.
    return (1 if kinds.pop() else 3) if kinds else files.shape()[0]


def use_labels(archive: str) -> bool:
    """Whether the images have labels, from ``dataset.json`` or class folders."""
    return _labels(archive) is not None


def num_classes(archive: str, remap_labels: bool, use_labels: bool) -> int:
    """The number of classes, or the length of label vectors; 0 if labels are not used.

    With ``remap_labels``, only classes that have an image count.
    """
    labels = _labels(archive) if use_labels else None
    if labels is None:
        return 0
    numbered_anew = remap_labels and labels.values.ndim == 1
    return len(set(labels.values.tolist())) if numbered_anew else labels.num_classes


def class_names(archive: str, remap_labels: bool, use_labels: bool) -> list[str] | None:
    """The class names in the order of the class indices; None without names."""
    labels = _labels(archive) if use_labels else None
    if labels is None or labels.class_names is None:
        return None
    names = list(labels.class_names)
    if remap_labels and labels.values.ndim == 1:
        return [names[k] for k in sorted(set(labels.values.tolist()))]
    return names + [f"class {k}" for k in range(len(names), labels.num_classes)]


def _labels(archive: str) -> LabelsOfImages | None:
    return _opened(archive).labelled


def _opened(archive: str) -> ImageFiles:
    location = find_images(archive, key=_KEY)
    return _open(location, str(location.absolute()), os.stat(location).st_mtime_ns)


@functools.lru_cache(maxsize=_REMEMBERED)
def _open(location: Path, *state: object) -> ImageFiles:
    return open_images(location, key=_KEY)


@functools.lru_cache(maxsize=_REMEMBERED)
def _headers(files: ImageFiles) -> tuple[tuple[tuple[int, int], str], ...]:
    """Size and mode of evenly spaced images; damaged ones are reported when the data are read."""
    found = []
    step = max(1, len(files.names) // _LOOKED_AT)
    for name in files.names[::step]:
        try:
            with Image.open(io.BytesIO(files.read(name))) as image:
                found.append((image.size, image.mode))
        except Exception:  # Pillow's plugins raise nearly anything
            continue
    if not found:
        files.shape()  # says what is wrong with the first
    return tuple(found)


def _unlike(files: ImageFiles, what: str) -> UsageError:
    return UsageError(
        f"the pictures in {files.location} have {what}, but a data set needs square images of one "
        "size, all grey or all colour.",
        key=_KEY,
        remedy=f"Make a data set of them: {prepare_command(files.location)}",
    )
