"""The report: one HTML file that needs nothing else."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from flowexp.errors import UsageError
from flowexp.metrics.protocol import least
from flowexp.report.comparison import compare
from flowexp.report.curves import TITLES, chart, curve_keys, curve_of
from flowexp.report.run_record import (
    RunRecord,
    StoredEvaluation,
    TrainingGrid,
    choice_facts,
    commands,
    losses_differ_in,
    manifest_facts,
    score_text,
    training_facts,
)
from flowexp.tables.render import sheet_of
from flowexp.tables.render.cells import cost_text, count_text, number_text
from flowexp.tables.render.forms import filled
from flowexp.tables.render.sheet import Column, Line, Sheet
from flowexp.tables.results import ClaimResult, TableResult

__all__ = ["InlineImage", "document", "read_results", "training_grids"]

_LOSSES = ("train/loss", "val/loss")
_MOST_BYTES = 600_000
_SHOWN_SIDE = 1024
_TINY = 200
_SCORE_TILES = 2
_SCHEDULES = ("train/learning_rate",)


def document(
    runs: Sequence[RunRecord], *, results: Sequence[TableResult | ClaimResult] = (), grids: int = 12
) -> str:
    """The page of tables and claims, and of runs with distinct names and at most ``grids`` grids.

    Raises:
        ValueError: There is nothing to show, or fewer than one grid is requested.
    """
    if not runs and not results:
        raise ValueError("there is neither a run nor a result to show")
    if grids < 1:
        raise ValueError(f"grids={grids}; allowed: integers >= 1")
    several = len(runs) > 1
    names = ", ".join([*(result.name for result in results), *(run.name for run in runs)])
    return filled(
        "report.html",
        package="flowexp.report",
        title=f"{names} - flowexp report",
        contents=[
            *(result.title for result in results),
            *(["Comparison"] if several else []),
            *(run.name for run in runs),
        ],
        results=[sheet_of(result) for result in results],
        comparison=_comparison(runs) if several else None,
        runs=[_run_section(run, grids=grids) for run in runs],
    )


def read_results(file: Path) -> list[TableResult | ClaimResult]:
    """The table or the claims that ``flowexp table`` wrote; ``UsageError`` for another file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        entries = content if isinstance(content, list) else [content]
        kinds = [ClaimResult if "verdict" in entry else TableResult for entry in entries]
        return [kind.from_dict(entry) for kind, entry in zip(kinds, entries, strict=True)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{file} is not a result of flowexp table ({error}).",
            key="runs",
            remedy="Name run directories, or JSON files that flowexp table wrote.",
        ) from error


def _comparison(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Sheets, and losses in one chart if they are the same quantity."""
    losses = [
        chart([curve_of(run.rows, key, label=run.name) for run in runs], title=TITLES.get(key, key))
        for key in _LOSSES
    ]
    return {
        "sheets": compare(runs),
        "differing": losses_differ_in(runs),
        "losses": [one for one in losses if one],
    }


@dataclass(frozen=True, kw_only=True)
class InlineImage:
    """An image within a page: its content as a data URI, and a text for screen readers (alt)."""

    uri: str
    width: int
    height: int
    alt: str
    caption: str

    @property
    def tiny(self) -> bool:
        """Whether a browser enlarges it, and should keep its pixels as they are."""
        return self.width <= _TINY


def _run_section(run: RunRecord, *, grids: int) -> dict[str, Any]:
    """The values for the template of a run, with at most ``grids`` sample grids."""
    charts = [
        chart([curve_of(run.rows, key, label=key)], title=TITLES.get(key, key),
              noisy=key not in _SCHEDULES)
        for key in curve_keys(run.rows)
    ]  # fmt: skip
    images = training_grids(run, most=grids)
    return {
        "name": run.name,
        "choices": ", ".join(f"{group} {option}" for group, option in choice_facts(run).items()),
        "tiles": _tiles(run),
        "curves": [one for one in charts if one],
        "grids": images,
        "left_out": len(run.grids) - len(images),
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
    known = training_facts(run)
    units = {"seconds": " s", "images/s": " images/s", "device": ""}
    small = ", ".join(known[name] + unit for name, unit in units.items() if name in known)
    tiles.append({"name": "trained", "value": known["trained"], "small": small})
    if "parameters" in known:
        tiles.append({"name": "parameters", "value": known["parameters"], "small": ""})
    return tiles


def _score_tile(evaluation: StoredEvaluation) -> dict[str, str]:
    value, _, ranges = score_text(evaluation).partition(" (")
    known = [ranges.rstrip(")")] if ranges else []
    known.append(evaluation.protocol.sampler or "sampler not stated")
    if evaluation.protocol.nfe is not None:
        known.append(f"NFE {count_text(evaluation.protocol.nfe)}")
    if evaluation.kimg is not None:
        known.append(f"at {evaluation.kimg:g} kimg")
    known += evaluation.reasons
    if evaluation.floor is not None:
        known.append(f"held-out real data: {number_text(evaluation.floor)}")
    return {"name": evaluation.title, "value": value, "small": "; ".join(known)}


def _scores(run: RunRecord) -> Sheet:
    numbers = ("value", "minimum", "held-out real data", "samples", "NFE", "cost")
    columns = [Column(title="metric"), *(Column(title=name, numeric=True) for name in numbers)]
    columns += [Column(title=name) for name in ("sampler", "weights", "when")]
    return Sheet(
        name="evaluations",
        title="Scores",
        columns=tuple(columns),
        lines=tuple(Line(cells=_cells(evaluation)) for evaluation in run.evaluations),
    )


def _cells(evaluation: StoredEvaluation) -> tuple[str, ...]:
    protocol = evaluation.protocol
    several = len(evaluation.values) > 1
    return (
        evaluation.title,
        score_text(evaluation),
        number_text(least(evaluation.values)) if several else "",
        number_text(evaluation.floor),
        count_text(protocol.n_gen) + (f" x {len(evaluation.values)}" if several else ""),
        "-" if protocol.nfe is None else count_text(protocol.nfe),
        cost_text(evaluation.seconds, device=protocol.device or "device not stated"),
        protocol.sampler or "not stated",
        evaluation.weights_in_words,
        evaluation.created[:16].replace("T", " "),
    )


def _protocol(evaluation: StoredEvaluation) -> tuple[str, dict[str, str]]:
    """The whole protocol, and every number of it, below its title."""
    stated = {
        name: "not stated" if value is None else str(value)
        for name, value in asdict(evaluation.protocol).items()
    }
    numbers = {
        **stated,
        "seeds": ", ".join(r.protocol.seeds or "not stated" for r in evaluation.records),
        "values": ", ".join(map(repr, evaluation.values)),
        **({"not a number": "; ".join(evaluation.reasons)} if evaluation.reasons else {}),
        **{name: repr(value) for name, value in evaluation.records[0].extra.items()},
        "checkpoint": ", ".join(f"{k} {v}" for k, v in evaluation.checkpoint.items()),
    }
    sampler = evaluation.protocol.sampler or "sampler not stated"
    return f"Protocol of {evaluation.title}, {sampler}", numbers


def _scored(run: RunRecord) -> list[InlineImage]:
    """The grid of each evaluation, once."""
    shown: dict[Path, InlineImage] = {}
    for evaluation in run.evaluations:
        path = _evaluation_grid(run, evaluation.directory)
        if path is None or path in shown:
            continue
        sampler = evaluation.protocol.sampler or "the run's sampler"
        caption = f"{sampler}, NFE {count_text(evaluation.protocol.nfe or float('nan'))}"
        alt = f"Grid of the first samples scored, drawn with {caption}"
        shown[path] = _inlined(path, alt=alt, caption=caption)
    return list(shown.values())


def _inlined(path: Path, *, alt: str, caption: str) -> InlineImage:
    """An image file as part of a page; a large one is made smaller."""
    from PIL import Image

    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:
            kind, size = str(image.format).lower(), image.size
            if len(content) > _MOST_BYTES:
                image.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
                written = io.BytesIO()
                image.convert("RGB").save(written, format="JPEG", quality=88)
                kind, size, content = "jpeg", image.size, written.getvalue()
                caption += ", shown smaller"
    except (OSError, SyntaxError) as error:
        problem = f"{path} is damaged or no image."
        raise UsageError(problem, key="runs", remedy="Remove the file.") from error
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
    return InlineImage(uri=uri, width=size[0], height=size[1], alt=alt, caption=caption)


def training_grids(run: RunRecord, *, most: int) -> list[InlineImage]:
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
    """The image that an evaluation left, also if the run has been moved since."""
    if not directory:
        return None
    inside = run.path / "eval" / Path(directory).name / "grid.png"
    return next((p for p in (inside, Path(directory) / "grid.png") if p.is_file()), None)


def _even(grids: Sequence[TrainingGrid], most: int) -> list[TrainingGrid]:
    count = min(most, len(grids))
    if count == 1:
        return [grids[-1]]
    return [grids[round(k * (len(grids) - 1) / (count - 1))] for k in range(count)]
