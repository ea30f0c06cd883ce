"""Pictures inside a page, as data URIs; large ones are made smaller."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowexp.report.run_record import RunRecord, TrainingGrid

__all__ = ["Picture", "evaluation_grid", "inlined", "training_grids"]

_MOST_BYTES = 600_000
_SHOWN_SIDE = 1024
_TINY = 200


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture within a page.

    Attributes:
        uri: Its content, as a data URI.
        width: In pixels.
        height: In pixels.
        alt: Text alternative for screen readers.
        caption: Text below it.
    """

    uri: str
    width: int
    height: int
    alt: str
    caption: str

    @property
    def tiny(self) -> bool:
        """Whether a browser enlarges it, and should keep its pixels as they are."""
        return self.width <= _TINY


def inlined(path: Path, *, alt: str, caption: str) -> Picture:
    """A picture file as part of a page."""
    from PIL import Image

    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        kind, size = str(image.format).lower(), image.size
        if len(content) > _MOST_BYTES:
            image.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
            written = io.BytesIO()
            image.convert("RGB").save(written, format="JPEG", quality=88)
            kind, size, content = "jpeg", image.size, written.getvalue()
            caption += ", shown smaller"
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
    return Picture(uri=uri, width=size[0], height=size[1], alt=alt, caption=caption)


def training_grids(run: RunRecord, *, most: int) -> list[Picture]:
    """Samples while training, oldest first; of many, an even choice with the first and the last."""
    return [
        inlined(
            grid.path,
            alt=f"Grid of samples of {run.name} after {grid.kimg:g} kimg of training",
            caption=f"{grid.kimg:g} kimg",
        )
        for grid in _even(run.grids, most)
    ]


def evaluation_grid(run: RunRecord, directory: str) -> Path | None:
    """The picture that an evaluation left, also if the run has been moved since."""
    if not directory:
        return None
    inside = run.path / "eval" / Path(directory).name / "grid.png"
    return next((p for p in (inside, Path(directory) / "grid.png") if p.is_file()), None)


def _even(grids: Sequence[TrainingGrid], most: int) -> list[TrainingGrid]:
    if len(grids) <= most:
        return list(grids)
    if most == 1:
        return [grids[-1]]
    last = len(grids) - 1
    return [grids[round(number * last / (most - 1))] for number in range(most)]
