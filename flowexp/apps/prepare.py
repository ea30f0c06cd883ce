"""``flowexp prepare``: make a data set from a folder or ZIP of pictures of any size."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.apps.terminal import shown, table
from flowexp.config.application import examine
from flowexp.config.override_text import command, override
from flowexp.config.overrides import in_full
from flowexp.config.problems import did_you_mean
from flowexp.errors import IncompleteError, StoppedError, UsageError
from flowexp.files import expanded
from flowexp.progress import track
from flowexp.threads import usable_cores

if TYPE_CHECKING:
    from flowexp.data.image_decoding import Colour
    from flowexp.data.image_files import ImageFiles
    from flowexp.data.preparation import Prepared, Recipe

__all__ = ["main"]

_MOST_NAMED = 20


def main(arguments: Sequence[str]) -> None:
    """Make a data set: ``in=FOLDER out=NAME.zip resolution=64``; a bare path is the folder."""
    given = [
        override("source", text) if "=" not in text and not text.startswith(("-", "~")) else text
        for text in in_full("prepare", arguments)
    ]
    if not any(text.startswith(("source=", "-")) for text in given):
        raise UsageError(
            "prepare needs a folder or ZIP of pictures.",
            key="in",
            remedy="Name it: flowexp prepare in=my_pictures out=flowers-64.zip resolution=64",
        )
    examine("prepare", _prepare, given, config_name="prepare")


def _prepare(config: dict[str, Any]) -> None:
    from flowexp.data.preparation import prepare

    recipe = _recipe(config)
    files = _pictures(config)
    out = _new_file(config, files)
    try:
        made = prepare(
            files,
            out,
            recipe,
            heldout=float(config["heldout"]),
            workers=config["workers"] or usable_cores(),
            track=partial(track, before="prepared", unit="pictures"),
        )
    except KeyboardInterrupt as stop:
        raise StoppedError("stopped; the same command continues it.") from stop
    print(table(_outcome(made, files, recipe)), flush=True)
    if made.broken:
        count = len(made.broken)
        which = "1 picture is" if count == 1 else f"{count} pictures are"
        raise IncompleteError(f"{which} missing in {shown(out)}; see above.")


def _recipe(config: dict[str, Any]) -> "Recipe":
    from flowexp.data.cropping import CROPS
    from flowexp.data.preparation import COLOURS, Recipe

    for key, known in (("crop", CROPS), ("colour", COLOURS)):
        name = str(config[key]).lower()
        if name not in known:
            raise UsageError(f"unknown value {name!r}.", key=key, remedy=did_you_mean(name, known))
    return Recipe(
        resolution=config["resolution"],
        crop=str(config["crop"]).lower(),
        colour=str(config["colour"]).lower(),
        background=_colour(config["background"]),
    )


def _colour(name: str) -> "Colour":
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(name)[:3]
    except ValueError as error:
        raise UsageError(
            f"unknown colour {name!r}.",
            key="background",
            remedy="Give a name or six digits: background=white, background='#ffffff'.",
        ) from error
    return red, green, blue


def _pictures(config: dict[str, Any]) -> "ImageFiles":
    """The pictures, with their labels checked before the work begins."""
    from flowexp.data.image_files import open_images
    from flowexp.data.locations import find_images

    files = open_images(find_images(config["source"], key="in"), key="in")
    try:
        _ = files.labelled
    except UsageError as error:
        remedy = "Fix the file, or remove it to use the subfolders as classes."
        raise UsageError(error.problem, key="in", remedy=remedy) from error
    return files


def _new_file(config: dict[str, Any], files: "ImageFiles") -> Path:
    out = expanded(config["out"])
    if out.suffix.lower() != ".zip":
        raise UsageError(f"{out} does not end in .zip.", key="out", remedy=f"Write out={out}.zip.")
    if out.exists():
        raise UsageError(
            f"{out} already exists.", key="out", remedy="Remove it, or name another file."
        )
    if files.location.is_dir() and out.resolve().is_relative_to(files.location.resolve()):
        raise UsageError(
            f"{out} is inside the folder of the pictures, {files.location}.",
            key="out",
            remedy=f"Write it elsewhere, e.g. out={out.name}.",
        )
    return out


def _outcome(made: "Prepared", files: "ImageFiles", recipe: "Recipe") -> list[tuple[str, str]]:
    kind = "grey" if made.channels == 1 else "colour"
    size = f"{recipe.resolution}x{recipe.resolution}"
    rows = [
        (
            "data set" if i == 0 else "held out",
            f"{shown(file)}: {count:,} images, {size}, {kind}, {_megabytes(file)}",
        )
        for i, (file, count) in enumerate(zip(made.archives, made.counts, strict=True))
    ]
    if made.found:
        rows.append(("continued", f"{made.found:,} of them were finished before"))
    rows += [*_enlarged(made, size), *_classes(made, files)]
    if files.left_out is not None:
        rows.append(("read", files.left_out))
    for name, problem in made.broken[:_MOST_NAMED]:
        rows.append(("broken", f"{name} {problem}"))
    if (more := len(made.broken) - _MOST_NAMED) > 0:
        rows.append(("broken", f"and {more:,} more"))
    archives = dict(zip(("archive", "test_archive"), made.archives, strict=False))
    options = {f"dataset.{key}": shown(file) for key, file in archives.items()}
    rows.append(("next", command("train", dataset="image_folder", **options)))
    return rows


def _enlarged(made: "Prepared", size: str) -> list[tuple[str, str]]:
    if not made.enlarged:
        return []
    name, (width, height) = min(made.enlarged, key=lambda item: min(item[1]))
    text = f"{len(made.enlarged):,} were smaller than {size}, the smallest {width}x{height}: {name}"
    return [("enlarged", text)]


def _classes(made: "Prepared", files: "ImageFiles") -> list[tuple[str, str]]:
    """The number of images per class, or the reason why there are no classes."""
    from flowexp.data.image_labels import LABEL_FILE

    if made.labels is None:
        text = "no class folders (rose/a.jpg, tulip/b.jpg)"
        return [("classes", f"none: no {LABEL_FILE} with labels and {text}")]
    values, names = made.labels.values, made.labels.class_names
    if values.ndim == 2:
        return [("labels", f"vectors of {values.shape[1]} numbers")]
    count = made.labels.num_classes
    rows = [
        ("classes", f"{count:,}" + (", held-out images included" if len(made.counts) > 1 else ""))
    ]
    for k in range(count)[:_MOST_NAMED]:
        name = names[k] if names is not None and k < len(names) else f"class {k}"
        rows.append(("", f"{int((values == k).sum()):>9,}  {k} {name}"))
    if count > _MOST_NAMED:
        rest = int((values >= _MOST_NAMED).sum())
        rows.append(("", f"{rest:>9,}  in {count - _MOST_NAMED:,} more classes"))
    return rows


def _megabytes(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.3g} MB"
