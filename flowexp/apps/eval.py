"""``flowexp eval``: score a run; every number with its protocol, its floor and its cost."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.apps.terminal import logging_to, shown, table
from flowexp.config.application import Job, launch
from flowexp.config.instantiate import instantiate
from flowexp.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from flowexp.evaluation import ScoreResult
    from flowexp.pipeline import SampleBatch
    from flowexp.runs.opening import OpenedRun

__all__ = ["main"]

_IMAGES = 100


def evaluate(job: Job) -> float | None:
    """Generate, measure, record.

    A number that is not one, such as the score of a diverged model, is a result like any other: it
    is stored and printed with its reason, and the command succeeds.

    Returns:
        The first metric's value, for optimising sweepers.
    """
    import torch

    from flowexp.data.locations import cache_dir
    from flowexp.evaluation import append_results, score, summarize
    from flowexp.metrics.weight_files import no_download
    from flowexp.pipeline import Processes, save_grid
    from flowexp.runs.opening import open_run

    config = job.config
    with no_download():
        metrics = instantiate(config["metric"], key="metric")
    if not metrics:
        raise UsageError("there is nothing to measure.", key="metric", remedy="Try metric=auto.")
    ranges = _ranges(config)
    opened = open_run(config)
    dataset = opened.built.dataset
    dataset.locate()
    reference, heldout = dataset.train(), dataset.heldout()
    images: list[Tensor] = []

    def keep(batch: "SampleBatch") -> None:
        wanted = _IMAGES - sum(map(len, images))
        if wanted > 0:
            images.append(batch.x[:wanted].cpu())

    weights = opened.weights
    circumstances = {
        "overrides": job.overrides,
        "checkpoint": {"kimg": weights.kimg, "sha256": weights.sha256, "path": str(weights.path)},
        "directory": str(job.directory),
    }
    results = []
    with logging_to(opened.run.log_file), Processes.start() as processes:
        for seeds in ranges:
            result = score(
                opened.pipeline,
                metrics=metrics,
                seeds=seeds,
                reference=reference,
                heldout=heldout,
                cache_dir=cache_dir(),
                facts={
                    "precision": "32-true",
                    "ema": ", ".join(filter(None, (weights.name, opened.transform))),
                    "sampler": opened.pipeline.sampling,
                },
                processes=processes,
                on_batch=keep,
            )
            results.append(result)
            if processes.is_first:
                for file in (opened.run.results_file, job.directory / "results.json"):
                    append_results(file, result, **circumstances)
    if not processes.is_first:
        return None
    grid = job.directory / "grid.png"
    save_grid(grid, torch.cat(images).nan_to_num(0.0, posinf=0.0, neginf=0.0))
    print("\n" + table(_outcome(results, opened, grid)))
    return float(summarize(results)[0].mean)


def _ranges(config: Mapping[str, Any]) -> list[list[int]]:
    """The seeds of each evaluation: those given, or disjoint ranges from 0 on."""
    from flowexp.evaluation import seed_ranges
    from flowexp.pipeline import parse_seeds

    if config["seeds"] is None:
        return seed_ranges(config["num_samples"], repeats=config["repeats"])
    if config["repeats"] != 1:
        raise UsageError(
            f"{config['repeats']} disjoint ranges cannot be made of seeds={config['seeds']}.",
            key="repeats",
            remedy="Give num_samples instead of seeds.",
        )
    return [parse_seeds(config["seeds"])]


def _outcome(
    results: "Sequence[ScoreResult]", opened: "OpenedRun", grid: Path
) -> list[tuple[str, str]]:
    """The scores, also over several ranges of seeds, and the cost and files of an evaluation."""
    from flowexp.evaluation import summarize

    rows = [row for result in results for row in result.rows()]
    for summary in summarize(results) if len(results) > 1 else ():
        text = f"{summary.mean:.4g} +- {summary.spread:.2g}, minimum {summary.minimum:.4g}"
        shown_text = text if math.isfinite(summary.mean) else "not a number"
        rows.append((f"{summary.title}, {len(results)} seed ranges", shown_text))
    count = sum(result.count for result in results)
    seconds = sum(result.seconds for result in results)
    speed = f"{seconds:.1f} s, {count / seconds:.1f} images/s"
    return [
        *rows,
        ("NFE", f"{results[0].nfe:.4g} network evaluations a sample"),
        ("generated and scored", f"{count} samples in {speed}"),
        ("run directory", shown(opened.run.path)),
        ("sample grid", shown(grid)),
        ("metrics file", shown(opened.run.results_file)),
    ]


main = partial(launch, "eval", evaluate)
