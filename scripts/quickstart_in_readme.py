"""Writes the numbers and the picture of a quickstart into the README and outputs/tables.

    python scripts/quickstart_in_readme.py outputs/quickstart "two CPU cores (AMD EPYC), no GPU"

It takes the last evaluation, training record and sample grid of the run. It writes them
to ``outputs/tables/quickstart.json``, and from there to ``quickstart.md`` and, between two marks,
to the README.
"""

import argparse
import json
import re
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowexp.evaluation import in_words
from flowexp.files import write_json, write_text
from flowexp.metrics import FrechetDistance, MetricRecord

README = Path("README.md")
TABLES = Path("outputs/tables")
FIRST, LAST = "<!-- quickstart -->", "<!-- /quickstart -->"
_WIDTH = 120
_BLOCK = re.compile(f"{FIRST}.*?{LAST}", re.DOTALL)


def record_of(run: Path, *, hardware: str) -> dict[str, Any]:
    """The measurements of a quickstart, in plain builtins.

    Raises:
        FileNotFoundError: The run has not been trained or evaluated.
    """
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1])
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    trained = {
        "kimg": last["kimg"],
        "seconds": round(last["time/seconds"]),
        "images_per_second": round(1000.0 * last["kimg"] / last["time/seconds"]),
        "loss": round(last["train/loss"], 4),
        "hardware": hardware,
        "torch": manifest["packages"]["torch"],
    }
    evaluation = results["evaluations"][-1]
    return {
        "experiment": manifest["choices"]["experiment"],
        "trained": trained,
        "evaluation": evaluation,
    }


def table(found: Mapping[str, Any]) -> str:
    """The rows of the evaluation and, below them, its number in words."""
    evaluation = found["evaluation"]
    record = MetricRecord.from_dict(evaluation["records"][0])
    seconds, speed = evaluation["seconds"], evaluation["images_per_second"]
    count, floor = evaluation["count"], record.extra["floor"]
    rows = {
        record.title: f"{record.value:.4g}",
        f"floor: held-out against train ({record.extra['floor_count']:g} images)": f"{floor:.4g}",
        "NFE": f"{evaluation['nfe']:g} network evaluations a sample ({record.protocol.sampler})",
        "generated and scored": f"{count} samples in {seconds:.0f} s, {speed:.0f} images/s",
    }
    lines = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join([*lines, "", in_words(record, zero=FrechetDistance.zero)])


def in_readme(text: str, found: Mapping[str, Any]) -> str:
    """The README with these numbers between the marks; ``ValueError`` if it has none."""
    if not _BLOCK.search(text):
        raise ValueError(f"the text has no {FIRST} ... {LAST}")
    trained, evaluation = found["trained"], found["evaluation"]
    record = MetricRecord.from_dict(evaluation["records"][0])
    sentences = (
        f"On {trained['hardware']}, the training took {trained['seconds']} s and the evaluation "
        f"({evaluation['count']} samples of {evaluation['nfe']:g} network evaluations each) "
        f"{evaluation['seconds']:.0f} s; it ends with **{record.title}: {record.value:.4g}** "
        f"([protocol]({TABLES}/quickstart.md)). "
        f"In words: {in_words(record, zero=FrechetDistance.zero)}"
    )
    block = textwrap.fill(sentences, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return _BLOCK.sub(lambda _: f"{FIRST}\n{block}\n{LAST}", text)


def page(found: Mapping[str, Any]) -> str:
    """The page ``quickstart.md``."""
    trained, evaluation = found["trained"], found["evaluation"]
    paragraphs = (
        "# make quickstart",
        f"`flowexp train experiment={found['experiment']}` and "
        f"`flowexp eval num_samples={evaluation['count']}`, {evaluation['created'][:10]}, "
        f"{trained['hardware']}, torch {trained['torch']}. One run, seed 0; the picture beside "
        "this file is its sample grid.",
        f"Training: {trained['kimg']:g} kimg in {trained['seconds']} s "
        f"({trained['images_per_second']} images/s), final loss {trained['loss']}.",
        table(found),
        "The Frechet distance on EfficientNet features is not an FID and not comparable with one. "
        "The protocol of the number, with hashes, is in quickstart.json. This page is written by "
        "`python scripts/quickstart_in_readme.py`.",
    )
    return "\n\n".join(paragraphs) + "\n"


def main() -> None:
    """Rewrite the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("hardware", help="description of the machine")
    given = parser.parse_args()
    found = record_of(given.run, hardware=given.hardware)
    text = in_readme(README.read_text(encoding="utf-8"), found)
    picture = max((given.run / "samples").glob("grid-*.png"))
    write_json(TABLES / "quickstart.json", found)
    write_text(TABLES / "quickstart.md", page(found))
    write_text(README, text)
    shutil.copyfile(picture, TABLES / "quickstart.png")


if __name__ == "__main__":
    main()
