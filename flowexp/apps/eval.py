"""``flowexp eval``: score a run; every number with its protocol, its floor and its cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

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
    import torch

    from flowexp.apps.from_run import open_run
    from flowexp.apps.terminal import logging_to, table
    from flowexp.config.instantiate import instantiate
    from flowexp.data.locations import cache_dir
    from flowexp.errors import UsageError
    from flowexp.evaluation import Processes, append_results, parse_seeds, save_grid, score

    config = job.config
    metrics = instantiate(config["metric"], key="metric")
    if not metrics:
        raise UsageError("there is nothing to measure.", key="metric", remedy="Try metric=auto.")
    chosen = config["seeds"]
    seeds = list(range(config["num_samples"])) if chosen is None else parse_seeds(chosen)
    opened = open_run(config)
    dataset = opened.parts.dataset
    dataset.locate()
    shown_images: list[Tensor] = []
    with logging_to(opened.run.log_file), Processes.start() as processes:
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
            latents=instantiate(config["latents"], key="latents"),
            cache_dir=cache_dir(),
            facts=_facts(opened, config),
            processes=processes,
            on_batch=lambda batch: shown_images.append(batch.x[:100].cpu()),
        )
    if not processes.is_first:
        return None
    facts = {"overrides": job.overrides, "directory": str(job.directory)}
    append_results(opened.run.results_file, result, **facts)
    grid = job.directory / "grid.png"
    save_grid(grid, torch.cat(shown_images)[:100])
    print("\n" + table(_outcome(result, opened, grid)))
    return float(result.records[0].value)


def _facts(opened: "Opened", config: Mapping[str, Any]) -> dict[str, str]:
    sampler = config["sampler"]
    name = str(sampler["_target_"]).rpartition(".")[2]
    steps = f"{sampler['steps']} steps" if "steps" in sampler else f"rtol {sampler.get('rtol')}"
    disturbed = sampler.get("perturbation")
    if disturbed:
        kind = str(disturbed["_target_"]).rpartition(".")[2]
        steps += ", " + ", ".join(
            [kind, *(f"{k}={v}" for k, v in disturbed.items() if k[0] != "_")]
        )
    return {
        "precision": "32-true",
        "ema": (opened.weights.ema or "raw")
        + (f", {opened.transform}" if opened.transform else ""),
        "sampler": f"{name}, {steps}" + _drawn(config["latents"]),
    }


def _drawn(latents: Mapping[str, Any]) -> str:
    """What to say of latents that are not flowexp's own."""
    name = str(latents["_target_"]).rpartition(".")[2]
    return "" if name == "FlowexpLatents" else f", {name}"


def _outcome(result: "ScoreResult", opened: "Opened", grid: Path) -> list[tuple[str, str]]:
    """Every number under its full protocol name, with its floor, and what it cost."""
    from flowexp.apps.terminal import shown

    rows = []
    for record in result.records:
        rows.append((record.title, f"{record.value:.4g}"))
        floor = record.extra.get("floor")
        if floor is not None:
            count = record.extra.get("floor_count")
            rows.append(("  floor: held-out against train", f"{floor:.4g} ({count} images)"))
        if record.protocol.notice:
            rows.append(("  note", record.protocol.notice))
    speed = f"{result.seconds:.1f} s, {result.images_per_second:.1f} images/s"
    return [
        *rows,
        ("NFE", f"{result.nfe:.4g} network evaluations a sample"),
        ("generated and scored", f"{result.count} samples in {speed}"),
        ("run directory", shown(opened.run.path)),
        ("sample grid", shown(grid)),
        ("metrics file", shown(opened.run.results_file)),
    ]
