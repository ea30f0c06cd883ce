"""``flowexp train``: from a config to a trained model and everything that belongs to the run."""

import json
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from flowexp.apps.terminal import failures_kept_in, logging_to, shown, table
from flowexp.config.application import Job, launch
from flowexp.config.override_text import command
from flowexp.config.trust import USER, must_be_declared
from flowexp.processes import is_first_process
from flowexp.tree import plain, without

if TYPE_CHECKING:
    from flowexp.data import ImageArrays
    from flowexp.runs import RunDirectory
    from flowexp.runs.assemble import Built
    from flowexp.training import FitResult, TrainingParts

__all__ = ["main"]

_LOG = logging.getLogger(__name__)
_OF_LENGTH = ("dirs", "hydra", "launcher", "trainer")
"""Keys that a run which goes on may change without another trial."""


def train(job: Job) -> float:
    """One training run, resumed if its directory already holds one.

    Returns:
        The final training loss, so that an optimising sweeper has something to minimise.
    """
    with failures_kept_in(job.directory / "log.txt"):
        return _train(job)


def _train(job: Job) -> float:
    first = is_first_process()  # refuses what Lightning would stumble over when it is imported
    import torch

    from flowexp.runs import RunDirectory, describe_run
    from flowexp.runs.assemble import build, describe
    from flowexp.runs.outside_parts import KEY as OUTSIDE
    from flowexp.runs.outside_parts import changed_since, outside_parts
    from flowexp.runs.pair_stores import open_pairs
    from flowexp.runs.trained import parents_in, start_from
    from flowexp.seeding import derive_seed
    from flowexp.training import fit, training_parts
    from flowexp.training.trainer import require_devices

    config = job.config
    seed = int(config["seed"])
    torch.manual_seed(derive_seed(seed, "init"))
    built = build(config, by=USER)
    built.dataset.locate()
    if config["init"]:
        start_from(built.network, run=config["init"], weights=config["init_weights"])
    parts = training_parts(config, built, by=USER)
    require_devices(parts.settings)
    if first:
        print(table([*describe(built, config), ("run", shown(job.directory))]), flush=True)
    pairs = open_pairs(config, built, check=first)
    arrays = built.dataset.train() if pairs is None else pairs.arrays
    built.pipeline.task.classes_without_images = arrays.classes_without_images
    _try_out(parts, job, arrays)
    run = RunDirectory.start(
        job.directory,
        config=config,
        overrides=job.overrides,
        manifest={
            **describe_run(seed=seed, dataset_fingerprint=arrays.fingerprint),
            "dataset_size": len(arrays),
            **_of_source(built.model.path.source),
            "dataset_reading": built.dataset.reading() if pairs is None else {},
            "classes_without_images": arrays.classes_without_images,
            "choices": job.choices,
            "parameters": built.parameters,
            OUTSIDE: outside_parts(config),
            "parents": {**parents_in(config), **(pairs.parents if pairs else {})},
        },
    )
    changed = [f"{text}." for text in changed_since(run.manifest(), config)]
    with logging_to(run.log_file):
        for remark in (*(pairs.remarks if pairs else ()), *_of_classes(built, arrays), *changed):
            _LOG.warning(remark)
        result = fit(parts, run=run, seed=seed, config=dict(config), arrays=arrays)
    if first:
        print("\n" + table(_outcome(result, run, trust=must_be_declared(config))))
    return result.final_loss


def _try_out(parts: "TrainingParts", job: Job, arrays: "ImageArrays") -> None:
    """Try parts that are not flowexp's, or all before a long training, unless it goes on as it was.

    Metrics of the user's own, which an evaluation builds, are built once.
    """
    from flowexp.config.instantiate import instantiate
    from flowexp.runs import RunDirectory
    from flowexp.runs.outside_parts import changed_since, outside_targets
    from flowexp.training.trial import LONG_STEPS, try_out

    config, run = job.config, RunDirectory(job.directory)
    metrics = config.get("metric") or {}
    instantiate(
        {n: m for n, m in metrics.items() if m and outside_targets(m)}, key="metric", by=USER
    )
    if not outside_targets(config) and parts.settings.total_steps < LONG_STEPS:
        return
    if run.config_file.exists() and run.latest_checkpoint() is not None:
        known = (without(c, _OF_LENGTH) for c in (run.config(), plain(config)))
        if len({json.dumps(c, sort_keys=True) for c in known}) == 1 and not any(
            changed_since(run.manifest(), config)
        ):
            return
    try_out(parts, seed=int(config["seed"]), config=dict(config), arrays=arrays)


def _of_source(source: object) -> dict[str, Any]:
    """What the manifest records of a data set that is the source."""
    from flowexp.data import DatasetSource

    if not isinstance(source, DatasetSource):
        return {}
    arrays = source.dataset.train()
    return {"source_fingerprint": arrays.fingerprint, "source_size": len(arrays)}


def _of_classes(built: "Built", arrays: "ImageArrays") -> Iterator[str]:
    """What to say of the classes of the data."""
    from flowexp.data.base import shown_classes, shown_mapping

    if (missing := arrays.classes_without_images) and built.pipeline.task.num_classes:
        yield (
            f"of the {arrays.num_classes} classes of {arrays.name}, {shown_classes(missing)} "
            f"{'have' if len(missing) > 1 else 'has'} no image: samples are drawn of the others"
        )
    if labels := built.dataset.reading().get("labels_of_classes"):
        yield f"classes of the run are numbered anew: {shown_mapping(labels)}"


def _outcome(
    result: "FitResult", run: "RunDirectory", *, trust: Sequence[str]
) -> list[tuple[str, str]]:
    speed = f"{result.seconds:.0f} s at {result.images_per_second:.0f} images/s"
    return [
        ("trained", f"{result.kimg:g} kimg in {speed}, final loss {result.final_loss:.4g}"),
        ("run directory", shown(run.path)),
        ("sample grids", shown(run.samples)),
        ("metrics", shown(run.metrics_file)),
        ("next", command("eval", trust=trust, run=shown(run.path))),
    ]


main = partial(launch, "train", train)
