"""FD over time: sampling seconds per image of a claim's arms, beside the scores it measured.

The seconds that a claim adds up are those of training, sampling and scoring on whatever machine was
free. Here the arms of several claims sample in turn, on the run of their first seed, so that what
else the machine does falls on all of them.

    python scripts/time_claims.py outputs/tables/claim_flowturbo_beats_*_cpu.json
"""

import argparse
import datetime
import json
import shlex
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from flowexp.config.check import check
from flowexp.files import write_json, write_text
from flowexp.report.document import read_results
from flowexp.runs.manifest import processor
from flowexp.runs.opening import open_run
from flowexp.tables.results import ClaimResult, RowResult

Sampling = Callable[[int], float]


def sampling(arm: RowResult, *, batch_size: int) -> Sampling:
    """Seconds that a number of images takes, with the evaluation's own sampler and weights.

    Args:
        arm: A measured arm; it is sampled as in the evaluation of its first seed.
        batch_size: Images per call of the sampler.

    Raises:
        ValueError: The job of the arm no longer exists, or its config is no longer sound.
    """
    checked = check("eval", [*evaluation_of(arm), "metric=fd_raw"])
    if checked.problems:
        raise ValueError(f"{arm.label}: {checked.problems[0]}")
    pipeline = open_run(checked.config).pipeline

    def seconds(count: int) -> float:
        taken = 0.0
        for first in range(0, count, batch_size):
            start = pipeline.start(range(first, min(first + batch_size, count)))
            before = time.perf_counter()
            pipeline.sampler.sample(pipeline.model, start.e, noise=start.noise, **start.conditions)
            taken += time.perf_counter() - before
        return taken

    return seconds


def evaluation_of(arm: RowResult) -> list[str]:
    """The overrides of the evaluation that measured an arm's first seed.

    Raises:
        ValueError: Its job is not among those of the same folder.
    """
    run = Path(arm.runs[0])
    values = set(arm.measured.values) if arm.measured is not None else set()
    for file in sorted((run.parents[1] / "eval").glob("*/results.json")):
        content = json.loads(file.read_text())["evaluations"]
        found = {record["value"] for entry in content for record in entry["records"]}
        marker = file.with_name("job.json")
        if found & values and marker.is_file():
            given = json.loads(marker.read_text())["command"][2:]
            if f"run={run}" in given or f"run={run.resolve()}" in given:
                return [text for text in given if not text.startswith(("dirs.", "metric="))]
    raise ValueError(f"{arm.label}: the job that evaluated {run} is gone; run the claim again")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="JSON files of flowexp table claim=...")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("outputs/tables/flowturbo_time"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    claims = [r for file in given.files for r in read_results(file) if isinstance(r, ClaimResult)]
    arms = [(claim, arm) for claim in claims for arm in claim.arms]
    samplings = [sampling(arm, batch_size=given.batch) for _, arm in arms]
    taken: list[list[float]] = [[] for _ in arms]
    for _ in range(given.rounds):
        for one, times in zip(samplings, taken, strict=True):
            times.append(one(given.images) / given.images * 1e3)
    rows = [
        {
            "claim": claim.name,
            "arm": arm.label,
            "nfe": arm.measured.nfe,
            "ms_per_image": statistics.median(times),
            "rounds": [min(times), max(times)],
            "fd": arm.measured.mean,
            "spread": arm.measured.spread,
        }
        for (claim, arm), times in zip(arms, taken, strict=True)
        if arm.measured is not None
    ]
    result = {
        "command": f"python scripts/time_claims.py {shlex.join(map(str, given.files))}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": processor(),
        "torch": torch.__version__,
        "protocol": f"{given.images} images in batches of {given.batch}, one thread, wall time, "
        f"median of {given.rounds} rounds in turn; FD from the claims, mean over their seeds",
        "rows": sorted(rows, key=lambda row: row["ms_per_image"]),
    }
    text = report(result)
    print(text)
    write_json(given.out.with_suffix(".json"), result)
    write_text(given.out.with_suffix(".md"), text)


def report(result: dict) -> str:
    """The table as Markdown."""
    lines = [
        "# FD over sampling time",
        "",
        f"`{result['command']}`, {result['date']}, {result['hardware']}, torch {result['torch']}. "
        f"{result['protocol']}.",
        "",
        "| claim | sampler | calls | ms an image | rounds | FD |",
        "| --- | --- | ---: | ---: | --- | ---: |",
    ]
    lines += [
        f"| {r['claim']} | {r['arm']} | {r['nfe']:g} | {r['ms_per_image']:.2f} "
        f"| {r['rounds'][0]:.2f} .. {r['rounds'][1]:.2f} | {r['fd']:.0f} ± {r['spread']:.0f} |"
        for r in result["rows"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
