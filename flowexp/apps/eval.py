"""``flowexp eval``: score a run; every number with its protocol, its floor and its cost."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowexp.apps.from_run import Opened
    from flowexp.config.application import Job
    from flowexp.evaluation import ScoreResult

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Score a run with the metrics it was configured with, or others.

    Args:
        arguments: Overrides (``run=DIR num_samples=5000 metric=fid``) and Hydra's options.
    """
    from flowexp.config.application import launch

    launch("eval", evaluate, arguments)


def evaluate(job: "Job") -> float | None:
    """Generate, measure, record.

    Args:
        job: The checked config and the output directory.

    Returns:
        The first metric's value, so that an optimising sweeper has something to minimise.
    """
    from flowexp.apps.from_run import open_run
    from flowexp.config.instantiate import instantiate
    from flowexp.data.locations import cache_dir
    from flowexp.errors import UsageError
    from flowexp.evaluation import Processes, append_results, parse_seeds, save_grid, score

    config = job.config
    metrics = instantiate(config["metric"], key="metric")
    if not metrics:
        raise UsageError("there is nothing to measure.", key="metric", remedy="Try metric=auto.")
    seeds = _seeds(config, parse_seeds)
    opened = open_run(config)
    dataset = opened.parts.dataset
    dataset.locate()
    first = []
    with Processes.start() as processes:
        result = score(
            opened.parts.model,
            metrics=metrics,
            reference=dataset.train(),
            heldout=dataset.heldout(),
            sampler=opened.parts.sampler,
            guidance=opened.parts.guidance,
            task=opened.parts.task,
            seeds=seeds,
            shape=dataset.shape,
            batch_size=config["batch_size"],
            device=opened.device,
            cache_dir=cache_dir(),
            facts=_facts(opened, config, job.choices),
            processes=processes,
            on_batch=lambda batch: first.append(batch.x.cpu()) if not first else None,
        )
        if not processes.is_first:
            return None
        append_results(
            opened.run.results_file, result, overrides=job.overrides, directory=str(job.directory)
        )
        grid = job.directory / "grid.png"
        save_grid(grid, first[0][:100])
    _print(result)
    print(f"  run directory    {opened.run.path}\n  sample grid      {grid}")
    print(f"  metrics file     {opened.run.results_file}")
    return result.records[0].value


def _seeds(config: dict[str, object], parse: object) -> list[int]:
    count = int(config["num_samples"])  # type: ignore[call-overload]
    if config["seeds"] is None:
        return list(range(count))
    seeds: list[int] = parse(config["seeds"])  # type: ignore[operator]
    return seeds


def _facts(opened: "Opened", config: dict[str, object], choices: dict[str, str]) -> dict[str, str]:
    sampler = dict(config["sampler"])  # type: ignore[call-overload]
    return {
        "precision": "32-true",
        "ema": opened.weights.ema or "raw",
        "sampler": f"{str(sampler.get('_target_')).rpartition('.')[2]}({sampler.get('steps')})",
    }


def _print(result: "ScoreResult") -> None:
    print()
    for record in result.records:
        print(f"  {record}")
    print(
        f"  NFE {result.nfe:.4g}, {result.count} samples in {result.seconds:.1f} s "
        f"({result.images_per_second:.1f} images/s)"
    )
