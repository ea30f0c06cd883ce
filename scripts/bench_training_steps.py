"""Seconds of a training step of every method of a measured table, taken in turn.

The seconds of whole trainings depend on what else the machine did. Here the methods take steps in
turn, in processor time of one thread, at four places of their trainings, because the step of a
schedule may become dearer; each round compares with the first method in the same round.

    python scripts/bench_training_steps.py outputs/tables/flow_maps_one_step_cpu.json
"""

import argparse
import datetime
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from flowexp.config.trust import USER
from flowexp.data import BatchStream
from flowexp.errors import UsageError
from flowexp.files import write_json, write_text
from flowexp.report.document import read_results
from flowexp.runs import RunDirectory
from flowexp.runs.assemble import build
from flowexp.runs.manifest import processor
from flowexp.tables.render.over_nfe import method_of
from flowexp.tables.results import TableResult
from flowexp.training import training_parts
from flowexp.training.fit import prepare_coupling
from flowexp.training.timed_passes import steps_on

PLACES = (0.125, 0.375, 0.625, 0.875)


def stepping(run: Path) -> tuple[Callable[[int], float], int]:
    """Processor seconds of ``n`` steps at each place of a run's training; and its batch size."""
    config = RunDirectory(run).config()
    built = build(config, by=USER)
    parts = training_parts(config, built, by=USER)
    size, total = parts.settings.batch_size, parts.settings.total_steps
    prepare_coupling(parts, built.dataset.train())
    stream = BatchStream(built.dataset.train(), batch_size=size, seed=0, hflip=False)
    batch = stream.batch(0)
    works = [steps_on(batch, parts, step=int(place * total)) for place in PLACES]
    for work in works:
        work(size)

    def seconds(count: int) -> float:
        started = time.process_time()
        for work in works:
            for _ in range(count):
                work(size)
        return (time.process_time() - started) / len(works) / count

    return seconds, size


def runs_of(table: TableResult) -> dict[str, Path]:
    """The run of the first seed of each method, by its name."""
    found: dict[str, Path] = {}
    for row in table.rows:
        if row.runs:
            found.setdefault(method_of(row), Path(row.runs[0]))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; 2 if the file is no measured table, or its runs are gone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="JSON file of flowexp table NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--title", default="Training steps of flow maps")
    parser.add_argument("--out", type=Path, default=Path("outputs/tables/flow_map_steps"))
    given = parser.parse_args(arguments)
    (table,) = read_results(given.file)
    if not isinstance(table, TableResult) or not runs_of(table):
        print(f"{given.file} has no runs of a table; measure one: flowexp table NAME.")
        return 2
    torch.set_num_threads(1)
    try:
        methods = {name: stepping(run) for name, run in runs_of(table).items()}
    except UsageError as error:
        print(f"{error} The same command of flowexp table trains what is gone.")
        return 2
    taken: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(given.rounds):
        print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
        for name, (seconds, _) in methods.items():
            taken[name].append(seconds(given.steps))
    first = next(iter(methods))
    rows = []
    for name, (_, size) in methods.items():
        ratios = [a / b for a, b in zip(taken[name], taken[first], strict=True)]
        rows.append(
            {
                "method": name,
                "batch_size": size,
                "ms_per_step": 1e3 * statistics.median(taken[name]),
                "ratio": statistics.median(ratios),
                "ratios": [min(ratios), max(ratios)],
            }
        )
    result = {
        "title": given.title,
        "command": f"python scripts/bench_training_steps.py {shlex.quote(str(given.file))} "
        f"--rounds {given.rounds} --steps {given.steps}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": processor(),
        "torch": torch.__version__,
        "protocol": f"processor time of one thread, {given.steps} steps at {len(PLACES)} places of "
        "the training (pairs, forward, backward, optimizer), median of "
        f"{given.rounds} rounds in turn; the ratio is to the first method in the same round, in "
        "brackets over the rounds",
        "rows": rows,
    }
    text = report(result)
    print(text)
    write_json(given.out.with_suffix(".json"), result)
    write_text(given.out.with_suffix(".md"), text)
    return 0


def report(result: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        f"# {result['title']}",
        "",
        f"`{result['command']}`, {result['date']}, {result['hardware']}, torch {result['torch']}. "
        f"{result['protocol'][0].upper()}{result['protocol'][1:]}.",
        "",
        "| method | images a step | ms a step | times the first |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['method']} | {row['batch_size']} | {row['ms_per_step']:.1f} | "
        f"{row['ratio']:.2f} ({row['ratios'][0]:.2f} .. {row['ratios'][1]:.2f}) |"
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
