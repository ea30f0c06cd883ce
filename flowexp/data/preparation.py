"""Makes a data set in EDM's layout from pictures of any size and kind; resumable.

Finished images are kept with a journal in a folder beside the archive, ``NAME.zip.partial``, from
which an interrupted preparation continues with the same settings. The archive is written at the
end, atomically.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from PIL import __version__ as pillow_version

from flowexp.data.cropping import CROPS
from flowexp.data.edm_archive import EdmArchive, as_png, edm_name
from flowexp.data.image_decoding import VERSION, Colour, NotDecodedError, decode_image, reason
from flowexp.data.image_files import ImageFiles
from flowexp.data.image_labels import LabelsOfImages
from flowexp.data.splits import evenly_among
from flowexp.errors import UsageError
from flowexp.files import room_for, write_atomically, write_json

__all__ = ["COLOURS", "Prepared", "Recipe", "Track", "prepare"]

COLOURS = {"rgb": "RGB", "grey": "L", "auto": None}
"""Pillow's mode for ``colour=NAME``; None = L if all pictures are grey, else RGB."""


class Track(Protocol):
    """Passes on ``total`` finished images and shows the progress."""

    def __call__(self, items: Iterable["_Done"], /, *, total: int) -> Iterable["_Done"]: ...


_SETTINGS, _JOURNAL = "settings.json", "done.jsonl"
_CHUNK = 256


@dataclass(frozen=True)
class Recipe:
    """How every picture is changed.

    Attributes:
        resolution: Width and height of the images, in pixels.
        crop: A name in ``CROPS``.
        colour: A name in ``COLOURS``.
        background: Colour behind transparent pixels and around padded pictures.
    """

    resolution: int
    crop: str
    colour: str
    background: Colour

    def made(self, content: bytes) -> tuple[Image.Image, tuple[int, int]]:
        """The image made from the bytes of a file, and the original size.

        Raises:
            NotDecodedError: The file cannot be decoded.
        """
        mode = COLOURS[self.colour]
        channels = 3 if mode == "RGB" else None
        image = decode_image(content, channels=channels, background=self.background)
        size = image.size
        if mode is not None:
            image = image.convert(mode)
        return CROPS[self.crop].make(image, self.resolution, self.background), size


@dataclass(frozen=True)
class _Done:
    """The result for one picture: its position, and its size and mode, or a problem."""

    index: int
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    problem: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A finished preparation.

    Attributes:
        archives: The archive and, if images are held out, the archive of these.
        counts: The number of images in each.
        labels: The labels of all these images, or None.
        channels: 1 for grey, 3 for colour.
        found: The number of images that an earlier command had finished.
        enlarged: Name and size of the pictures that were smaller than the resolution.
        broken: Name and problem of the pictures that were left out.
    """

    archives: list[Path]
    counts: list[int]
    labels: LabelsOfImages | None
    channels: int
    found: int
    enlarged: list[tuple[str, tuple[int, int]]]
    broken: list[tuple[str, str]]


def prepare(
    files: ImageFiles, out: Path, recipe: Recipe, *, heldout: float, workers: int, track: Track
) -> Prepared:
    """Write the archive ``out``, and ``NAME-heldout.zip`` if images are held out.

    Args:
        files: The pictures.
        out: A path that ends in ``.zip`` and does not exist.
        recipe: How pictures are changed.
        heldout: The fraction of every class that is held out, 0 to 0.5, evenly spaced.
        workers: Threads that decode and resize.
        track: Shows the progress.

    Raises:
        UsageError: A preparation of ``out`` was begun with other settings; or no picture is intact.
        NotWrittenError: The disk is full; finished images are kept.
    """
    work = _Work(files, out, recipe)
    with room_for(out):
        work.begin()
        done = work.journal()
        found = len(done)
        rest = [i for i in range(len(files.names)) if i not in done]
        for one in track(work.make(rest, workers), total=len(rest)):
            done[one.index] = one
        good = [done[i] for i in sorted(done) if done[i].problem is None]
        broken = [(files.names[i], done[i].problem or "") for i in sorted(done) if done[i].problem]
        if not good:
            shutil.rmtree(work.folder)
            name, problem = broken[0]
            raise UsageError(f"{files.location} has no intact picture; {name} {problem}.", key="in")
        kept = [one.index for one in good]
        labels = None if files.labelled is None else files.labelled.at(kept)
        parts = _split(len(good), labels, heldout)
        archives = [out, out.with_name(f"{out.stem}-heldout.zip")][: len(parts)]
        modes = {one.mode for one in good}
        mode = "RGB" if len(modes) > 1 else modes.pop()
        # The archive that the command names is written last: once it exists, all is done.
        for archive, part in reversed(list(zip(archives, parts, strict=True))):
            pictures = [work.place(kept[i]) for i in part]
            own = None if labels is None else labels.at(part)
            write_atomically(archive, EdmArchive(pictures, own, mode).write)
    shutil.rmtree(work.folder, ignore_errors=True)
    fitted = CROPS[recipe.crop].fitted
    small = [one for one in good if fitted(one.size) < recipe.resolution]
    return Prepared(
        archives=archives,
        counts=[len(part) for part in parts],
        labels=labels,
        channels=1 if mode == "L" else 3,
        found=found,
        enlarged=[(files.names[one.index], one.size) for one in small],
        broken=broken,
    )


class _Work:
    """The folder of an unfinished preparation."""

    def __init__(self, files: ImageFiles, out: Path, recipe: Recipe) -> None:
        self.files = files
        self.recipe = recipe
        self.out = out
        self.folder = out.with_name(f"{out.name}.partial")

    def begin(self) -> None:
        """Make the folder, or compare its settings with these."""
        own = {
            **asdict(self.recipe),
            "background": list(self.recipe.background),
            "in": str(self.files.location.resolve()),
            "pictures": self.files.state(),
            "versions": f"pillow {pillow_version}, decoding {VERSION}",
        }
        file = self.folder / _SETTINGS
        try:
            begun = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            write_json(file, own)
            return
        differ = [key for key in own if begun.get(key) != own[key]]
        if differ:
            shown = ", ".join(_difference(key, begun.get(key), own[key]) for key in differ)
            raise UsageError(
                f"{self.folder} holds the beginning of another preparation: {shown}.",
                key="out",
                remedy=f"Give the same settings to continue it, name another file with out=..., "
                f"or remove {self.folder}.",
            )

    def journal(self) -> dict[int, _Done]:
        """The finished pictures by position."""
        done: dict[int, _Done] = {}
        try:
            lines = (self.folder / _JOURNAL).read_text(encoding="utf-8").splitlines()
        except OSError:
            return done
        for line in lines:
            try:
                index, width, height, mode = json.loads(line)
            except ValueError:  # a kill cut the last line
                continue
            # After a power cut, a file may exist without its content.
            if self.place(index).is_file() and self.place(index).stat().st_size:
                done[index] = _Done(index, (width, height), mode)
        return done

    def place(self, index: int) -> Path:
        """The file of a finished image."""
        return self.folder / edm_name(index)

    def make(self, indices: Sequence[int], workers: int) -> Iterator[_Done]:
        """Make the images and record the finished ones in the journal."""
        with (
            (self.folder / _JOURNAL).open("a", buffering=1, encoding="utf-8") as journal,
            ThreadPoolExecutor(workers) as pool,
        ):
            journal.write("\n")
            for start in range(0, len(indices), _CHUNK):
                for done in pool.map(self._made, indices[start : start + _CHUNK]):
                    if done.problem is None:
                        journal.write(json.dumps([done.index, *done.size, done.mode]) + "\n")
                    yield done

    def _made(self, index: int) -> _Done:
        try:
            content = self.files.read(self.files.names[index])
            image, size = self.recipe.made(content)
        except NotDecodedError as error:
            return _Done(index, problem=str(error))
        except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
            return _Done(index, problem=f"cannot be read ({reason(error)})")
        place = self.place(index)
        place.parent.mkdir(exist_ok=True)
        beside = place.with_suffix(".part")
        beside.write_bytes(as_png(image))
        os.replace(beside, place)
        return _Done(index, size, image.mode)


def _split(count: int, labels: LabelsOfImages | None, heldout: float) -> list[list[int]]:
    """Positions of training images and, if there are any, of held-out ones, class by class."""
    if heldout == 0.0:
        return [list(range(count))]
    classes = np.zeros(count, dtype=np.int64)
    if labels is not None and labels.values.ndim == 1:
        classes = labels.values
    mask = np.zeros(count, dtype=bool)
    for one in np.unique(classes):
        members = np.flatnonzero(classes == one)
        mask[evenly_among(members, round(heldout * len(members)))] = True
    if not mask.any():
        raise UsageError(
            f"{heldout:g} is too small to hold out one of {count} pictures from any class.",
            key="heldout",
            remedy="Give more, up to heldout=0.5, or heldout=0.",
        )
    return [np.flatnonzero(~mask).tolist(), np.flatnonzero(mask).tolist()]


def _difference(key: str, begun: object, own: object) -> str:
    if key == "pictures":
        return "the pictures have changed since"
    return f"{key} was {begun}, not {own}"
