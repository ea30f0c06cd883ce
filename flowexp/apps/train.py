"""``flowexp train``: from a config to a trained model and everything that belongs to the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowexp.config.application import Job
    from flowexp.training import FitResult

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Train one run, or with ``-m`` one run per combination.

    Args:
        arguments: Overrides and Hydra's options.
    """
    from flowexp.config.application import launch

    launch("train", train, arguments)


def train(job: "Job") -> float:
    """One training run, resumed if its directory already holds one.

    Args:
        job: The checked config and the run directory.

    Returns:
        The final training loss, so that an optimising sweeper has something to minimise.
    """
    import torch

    from flowexp.apps.assemble import assemble, check_times, describe, resolve_device
    from flowexp.checkpoints import RunDirectory, describe_run
    from flowexp.config.instantiate import instantiate
    from flowexp.seeding import derive_seed
    from flowexp.training import fit

    config = job.config
    seed = int(config["seed"])
    settings = instantiate(config["trainer"], key="trainer")
    resolve_device(config["device"])
    torch.manual_seed(derive_seed(seed, "init"))
    parts = assemble(config, device="cpu")
    parts.dataset.locate()
    rest = {
        name: instantiate(config[name], key=name)
        for name in ("coupling", "timestep", "objective", "optimizer", "lr_schedule")
    }
    check_times(rest["timestep"], parts.model.path.schedule)
    several = {name: instantiate(config[name], key=name) for name in ("ema", "callbacks", "logger")}
    print(describe(parts, config), f"  run              {job.directory}", sep="\n", flush=True)
    fingerprint = parts.dataset.train().fingerprint
    run = RunDirectory.start(
        job.directory,
        config=config,
        overrides=job.overrides,
        manifest={
            **describe_run(seed=seed, dataset_fingerprint=fingerprint),
            "choices": job.choices,
        },
    )
    result = fit(
        model=parts.model,
        dataset=parts.dataset,
        emas=several["ema"],
        callbacks=several["callbacks"],
        loggers=several["logger"],
        settings=settings,
        sampler=parts.sampler,
        guidance=parts.guidance,
        task=parts.task,
        run=run,
        seed=seed,
        config=dict(config),
        **rest,
    )
    _report(result, run.path)
    return result.final_loss


def _report(result: "FitResult", run: Path) -> None:
    print(
        f"\ntrained {result.kimg:g} kimg in {result.seconds:.0f} s "
        f"({result.images_per_second:.0f} images/s), final loss {result.final_loss:.4g}\n"
        f"  run directory    {run}\n"
        f"  sample grids     {run / 'samples'}\n"
        f"  metrics          {run / 'metrics.jsonl'}\n"
        f"  score it with    flowexp eval run={run}"
    )
