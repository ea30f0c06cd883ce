"""``flowexp eval``: score a run; every number with its protocol, its floor and its cost."""

from collections.abc import Mapping, Sequence
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


def main(arguments: Sequence[str]) -> None:
    """Score a run with the metrics it was configured with, or others.

    Args:
        arguments: Overrides (``run=DIR num_samples=5000 metric=fid``) and Hydra's options.
    """
    launch("eval", evaluate, arguments)


def evaluate(job: Job) -> float | None:
    """Generate, measure, record.

    Returns:
        The first metric's value, for optimising sweepers.
    """
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
    pictures = _FirstPictures()
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
                facts=_facts(opened),
                processes=processes,
                on_batch=pictures,
            )
            results.append(result)
            if processes.is_first:
                for file in (opened.run.results_file, job.directory / "results.json"):
                    append_results(file, result, **_circumstances(opened, job))
    if not processes.is_first:
        return None
    grid = job.directory / "grid.png"
    save_grid(grid, pictures.images())
    rows = [row for result in results for row in result.rows()]
    print("\n" + table([*rows, *_summary(results), *_outcome(results, opened, grid)]))
    return float(summarize(results)[0].mean)


_PICTURES = 100


class _FirstPictures:
    """Keeps the first samples of an evaluation for its grid."""

    def __init__(self) -> None:
        self._kept: list[Tensor] = []

    def __call__(self, batch: "SampleBatch") -> None:
        wanted = _PICTURES - sum(map(len, self._kept))
        if wanted > 0:
            self._kept.append(batch.x[:wanted].cpu())

    def images(self) -> "Tensor":
        """The kept samples, (N, ...)."""
        import torch

        return torch.cat(self._kept)


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


def _circumstances(opened: "OpenedRun", job: Job) -> dict[str, Any]:
    """Command, checkpoint and directory, stored beside an evaluation."""
    weights = opened.weights
    return {
        "overrides": job.overrides,
        "checkpoint": {"kimg": weights.kimg, "sha256": weights.sha256, "path": str(weights.path)},
        "directory": str(job.directory),
    }


def _facts(opened: "OpenedRun") -> dict[str, str]:
    return {
        "precision": "32-true",
        "ema": opened.weights.name + (f", {opened.transform}" if opened.transform else ""),
        "sampler": opened.pipeline.sampling,
    }


def _summary(results: "Sequence[ScoreResult]") -> list[tuple[str, str]]:
    """Mean, spread and minimum over the ranges of seeds, if there are several."""
    from flowexp.evaluation import summarize

    if len(results) < 2:
        return []
    return [
        (
            f"{summary.title}, {len(results)} seed ranges",
            f"{summary.mean:.4g} +- {summary.spread:.2g}, minimum {summary.minimum:.4g}",
        )
        for summary in summarize(results)
    ]


def _outcome(
    results: "Sequence[ScoreResult]", opened: "OpenedRun", grid: Path
) -> list[tuple[str, str]]:
    """Cost and files of an evaluation."""
    count = sum(result.count for result in results)
    seconds = sum(result.seconds for result in results)
    speed = f"{seconds:.1f} s, {count / seconds:.1f} images/s"
    return [
        ("NFE", f"{results[0].nfe:.4g} network evaluations a sample"),
        ("generated and scored", f"{count} samples in {speed}"),
        ("run directory", shown(opened.run.path)),
        ("sample grid", shown(grid)),
        ("metrics file", shown(opened.run.results_file)),
    ]
