"""Pictures inside a page, as data URIs; large ones are made smaller."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from flowexp.report.run_record import RunRecord, TrainingGrid

__all__ = ["evaluation_grid", "figure", "training_grids"]

_MOST_BYTES = 600_000
_SHOWN_SIDE = 1024
_TINY = 200


@dataclass(frozen=True)
class _Inlined:
    uri: str
    size: tuple[int, int]
    smaller: bool


def figure(path: Path, *, alt: str, caption: str) -> str:
    """A picture with its caption.

    Args:
        path: A picture file.
        alt: What it shows, for those who do not see it.
        caption: Text below it.
    """
    inlined = _inlined(path)
    width, height = inlined.size
    below = caption + (", shown smaller" if inlined.smaller else "")
    return (
        f'<figure><img{_kind(width)} src="{inlined.uri}" width="{width}" height="{height}" '
        f'alt="{escape(alt)}">'
        f"<figcaption>{escape(below)}</figcaption></figure>\n"
    )


def training_grids(run: RunRecord, *, most: int) -> str:
    """Samples while training, oldest first; of many, an even choice with the first and the last.

    Args:
        run: The run.
        most: Largest number of pictures; at least 1.
    """
    chosen = _even(run.grids, most)
    if not chosen:
        return '<p class="soft">No grid of samples was drawn.</p>\n'
    figures = "".join(
        figure(
            grid.path,
            alt=f"Grid of samples of {run.name} after {grid.kimg:g} kimg of training",
            caption=f"{grid.kimg:g} kimg",
        )
        for grid in chosen
    )
    left = len(run.grids) - len(chosen)
    note = f'<p class="soft">{left} of {len(run.grids)} grids are left out.</p>\n' if left else ""
    return f'<div class="grids">\n{figures}</div>\n{note}'


def evaluation_grid(run: RunRecord, directory: str) -> Path | None:
    """The picture that an evaluation left, also if the run has been moved since."""
    if not directory:
        return None
    inside = run.path / "eval" / Path(directory).name / "grid.png"
    return next((p for p in (inside, Path(directory) / "grid.png") if p.is_file()), None)


def _kind(width: int) -> str:
    """Pictures that a browser enlarges keep their pixels; those it shrinks are better smoothed."""
    return ' class="tiny"' if width <= _TINY else ""


def _even(grids: Sequence[TrainingGrid], most: int) -> list[TrainingGrid]:
    if len(grids) <= most:
        return list(grids)
    if most == 1:
        return [grids[-1]]
    last = len(grids) - 1
    return [grids[round(number * last / (most - 1))] for number in range(most)]


def _inlined(path: Path) -> _Inlined:
    from PIL import Image

    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        kind, size = str(image.format).lower(), image.size
        smaller = len(content) > _MOST_BYTES
        if smaller:
            image.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
            written = io.BytesIO()
            image.convert("RGB").save(written, format="JPEG", quality=88)
            kind, size, content = "jpeg", image.size, written.getvalue()
    text = base64.b64encode(content).decode("ascii")
    return _Inlined(f"data:image/{kind};base64,{text}", size, smaller)
