"""A run as a section of the report."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from flowexp.report.curves import chart, curve_keys, curve_of
from flowexp.report.facts import (
    choice_facts,
    commands,
    manifest_facts,
    score_text,
    training_facts,
)
from flowexp.report.run_record import RunRecord, StoredEvaluation, TrainingGrid
from flowexp.tables.render.numbers import cost_text, count_text, number_text
from flowexp.tables.render.sheet import Column, Line, Sheet

__all__ = ["Picture", "curve_title", "run_section", "training_grids"]

_MOST_BYTES = 600_000
_SHOWN_SIDE = 1024
_TINY = 200
_SCORE_TILES = 2
_SCHEDULES = ("train/learning_rate",)
_TITLES: Mapping[str, str] = {
    "train/loss": "Training loss",
    "val/loss": "Validation loss",
    "train/learning_rate": "Learning rate",
    "time/images_per_second": "Speed, images/s",
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture within a page: its content as a data URI, and a text for screen readers (alt)."""

    uri: str
    width: int
    height: int
    alt: str
    caption: str

    @property
    def tiny(self) -> bool:
        """Whether a browser enlarges it, and should keep its pixels as they are."""
        return self.width <= _TINY


def curve_title(key: str) -> str:
    """The heading of a metric's chart."""
    return _TITLES.get(key, key)


def run_section(run: RunRecord, *, grids: int) -> dict[str, Any]:
    """The values for the template of a run, with at most ``grids`` sample grids."""
    charts = [
        chart([curve_of(run.rows, key, label=key)], title=curve_title(key),
              noisy=key not in _SCHEDULES)
        for key in curve_keys(run.rows)
    ]  # fmt: skip
    pictures = training_grids(run, most=grids)
    return {
        "name": run.name,
        "choices": ", ".join(f"{group} {option}" for group, option in choice_facts(run).items()),
        "tiles": _tiles(run),
        "curves": [one for one in charts if one],
        "grids": pictures,
        "left_out": len(run.grids) - len(pictures),
        "scores": _scores(run),
        "protocols": [_protocol(evaluation) for evaluation in run.evaluations],
        "scored": _scored(run),
        "commands": "\n".join(commands(run)),
        "code": run.manifest.get("code") or {},
        "manifest": manifest_facts(run.manifest),
        "config": yaml.safe_dump(dict(run.config), sort_keys=False),
    }


def _tiles(run: RunRecord) -> list[dict[str, str]]:
    tiles = [_score_tile(evaluation) for evaluation in run.evaluations[-_SCORE_TILES:]]
    facts = training_facts(run)
    cost = [f"{facts['seconds']} s"] if "seconds" in facts else []
    cost += [f"{facts['images/s']} images/s"] if "images/s" in facts else []
    small = ", ".join([*cost, facts["device"]])
    tiles.append({"name": "trained", "value": facts["trained"], "small": small})
    if "parameters" in facts:
        tiles.append({"name": "parameters", "value": facts["parameters"], "small": ""})
    return tiles


def _score_tile(evaluation: StoredEvaluation) -> dict[str, str]:
    value, _, ranges = score_text(evaluation).partition(" (")
    known = [ranges.rstrip(")")] if ranges else []
    known.append(evaluation.protocol.sampler or "sampler not stated")
    if evaluation.protocol.nfe is not None:
        known.append(f"NFE {count_text(evaluation.protocol.nfe)}")
    if evaluation.floor is not None:
        known.append(f"held-out real data: {number_text(evaluation.floor)}")
    return {"name": evaluation.title, "value": value, "small": "; ".join(known)}


def _scores(run: RunRecord) -> Sheet:
    texts = ("metric", "sampler", "weights", "when")
    titles = (
        "metric", "value", "minimum", "held-out real data", "samples", "NFE", "cost", "sampler",
        "weights", "when",
    )  # fmt: skip
    columns = [Column(title=title, numeric=title not in texts) for title in titles]
    return Sheet(
        name="evaluations",
        title="Scores",
        columns=tuple(columns),
        lines=tuple(Line(cells=_cells(evaluation)) for evaluation in run.evaluations),
    )


def _cells(evaluation: StoredEvaluation) -> tuple[str, ...]:
    protocol = evaluation.protocol
    several = len(evaluation.values) > 1
    kimg = evaluation.checkpoint.get("kimg")
    return (
        evaluation.title,
        score_text(evaluation),
        number_text(min(evaluation.values)) if several else "",
        number_text(evaluation.floor),
        count_text(protocol.n_gen) + (f" x {len(evaluation.values)}" if several else ""),
        "-" if protocol.nfe is None else count_text(protocol.nfe),
        cost_text(evaluation.seconds, device=protocol.device or "device not stated"),
        protocol.sampler or "not stated",
        (protocol.ema or "not stated") + (f" at {kimg:g} kimg" if kimg else ""),
        evaluation.created[:16].replace("T", " "),
    )


def _protocol(evaluation: StoredEvaluation) -> tuple[str, dict[str, str]]:
    """The whole protocol, and every number of it, below its title."""
    stated = {
        name: "not stated" if value is None else str(value)
        for name, value in asdict(evaluation.protocol).items()
    }
    facts = {
        **stated,
        "seeds": ", ".join(r.protocol.seeds or "not stated" for r in evaluation.records),
        "values": ", ".join(map(repr, evaluation.values)),
        **{name: repr(value) for name, value in evaluation.records[0].extra.items()},
        "checkpoint": ", ".join(f"{k} {v}" for k, v in evaluation.checkpoint.items()),
    }
    sampler = evaluation.protocol.sampler or "sampler not stated"
    return f"Protocol of {evaluation.title}, {sampler}", facts


def _scored(run: RunRecord) -> list[Picture]:
    """The grid of each evaluation, once."""
    shown: dict[Path, Picture] = {}
    for evaluation in run.evaluations:
        path = _evaluation_grid(run, evaluation.directory)
        if path is None or path in shown:
            continue
        sampler = evaluation.protocol.sampler or "the run's sampler"
        caption = f"{sampler}, NFE {count_text(evaluation.protocol.nfe or float('nan'))}"
        alt = f"Grid of the first samples scored, drawn with {caption}"
        shown[path] = _inlined(path, alt=alt, caption=caption)
    return list(shown.values())


def _inlined(path: Path, *, alt: str, caption: str) -> Picture:
    """A picture file as part of a page; a large one is made smaller."""
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
        _inlined(
            grid.path,
            alt=f"Grid of samples of {run.name} after {grid.kimg:g} kimg of training",
            caption=f"{grid.kimg:g} kimg",
        )
        for grid in _even(run.grids, most)
    ]


def _evaluation_grid(run: RunRecord, directory: str) -> Path | None:
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
