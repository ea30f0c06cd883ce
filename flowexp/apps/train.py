"""``flowexp train``: from a config to a trained model and everything that belongs to the run."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from flowexp.apps.sweeps import after_training
from flowexp.apps.terminal import failures_kept_in, logging_to, shown, table
from flowexp.config.application import Job, launch
from flowexp.config.differences import differing
from flowexp.config.from_run import author_of
from flowexp.config.override_text import command
from flowexp.config.stored import choices_of
from flowexp.config.trust import must_be_declared
from flowexp.errors import UsageError
from flowexp.processes import is_first_process
from flowexp.progress import stage
from flowexp.tree import without

if TYPE_CHECKING:
    from flowexp.config.trust import Author
    from flowexp.data import ImageArrays
    from flowexp.runs import RunDirectory
    from flowexp.runs.assemble import Built
    from flowexp.runs.going_on import GoingOn
    from flowexp.training import TrainingParts

__all__ = ["main"]

_LOG = logging.getLogger(__name__)
_OF_LENGTH = ("dirs", "hydra", "launcher", "trainer")
"""Keys that can change when a run is continued without another trial step."""


def train(job: Job) -> float:
    """One training run, resumed if its directory already holds one.

    Returns:
        The final training loss, so that an optimising sweeper has something to minimise.
    """
    with failures_kept_in(job.directory / "log.txt"):
        return _train(job)


def _train(job: Job) -> float:
    first = is_first_process()  # refuses what Lightning would stumble over when it is imported
    from flowexp.runs.going_on import GoingOn, together
    from flowexp.runs.run_directory import RunDirectory

    origin = job.config.get("run") or job.config.get("parent")
    by = author_of(job.config)
    config = without(job.config, ("run", "parent"))
    named, old = "run" in job.config, RunDirectory(shown(job.directory))
    overrides, rescheduled, resumed = job.overrides, False, False
    if old.config_file.is_file():
        going_on = GoingOn(old, config, job.overrides, by=by, named=named)
        rescheduled = going_on.judge()
        if going_on.finished:
            return _finished(going_on, first=first)
        resumed = going_on.step > 0
        overrides = together(old.overrides(), job.overrides) if named else job.overrides
    with stage("loading PyTorch and Lightning"):
        from flowexp.training import fit, training_parts

    import torch

    from flowexp.runs import describe_run
    from flowexp.runs.assemble import build, describe
    from flowexp.runs.outside_parts import KEY as OUTSIDE
    from flowexp.runs.outside_parts import changed_since, outside_parts
    from flowexp.runs.pair_stores import open_pairs
    from flowexp.runs.trained import parents_in, require_same_latents, start_from
    from flowexp.seeding import derive_seed
    from flowexp.training.fit import prepare_coupling
    from flowexp.training.parts import described
    from flowexp.training.trainer import require_devices

    seed = int(config["seed"])
    torch.manual_seed(derive_seed(seed, "init"))
    with stage("building the network"):
        built = build(config, by=by)
    built.dataset.locate()
    built.autoencoder.locate()
    require_same_latents(config, built.autoencoder)
    if config["init"] and not resumed:
        weights = config["init_weights"]
        start_from(built.network, run=config["init"], weights=weights, config=job.config)
    parts = training_parts(config, built, by=by)
    require_devices(parts.settings)
    if first:
        rows = [*describe(built, config), *described(parts), ("run", shown(job.directory))]
        print(table(rows), flush=True)
    pairs = open_pairs(config, built, check=first)
    latents = _latents(built, parts, old)
    arrays = parts.dataset.train() if pairs is None else pairs.arrays
    built.pipeline.task.classes_without_images = arrays.classes_without_images
    prepare_coupling(parts, arrays)
    _try_out(parts, config, old, arrays, by=by)
    seen = built.dataset.train() if pairs is None else pairs.arrays
    run = RunDirectory.start(
        job.directory,
        config=config,
        overrides=overrides,
        judged=("lr_schedule",) if rescheduled else (),
        manifest={
            **describe_run(seed=seed, dataset_fingerprint=seen.fingerprint),
            **latents,
            "dataset_size": len(arrays),
            **_of_source(built.model.path.source),
            "coupling": parts.coupling.record(),
            "dataset_reading": built.dataset.reading() if pairs is None else {},
            "classes_without_images": arrays.classes_without_images,
            "choices": _choices(job, origin),
            "parameters": built.parameters,
            OUTSIDE: outside_parts(config),
            # the run that a resumed one started from may be gone
            "parents": {
                **parents_in({**config, "init": None} if resumed else config),
                **(pairs.parents if pairs else {}),
            },
        },
    )
    changed = [f"{text}." for text in changed_since(run.manifest(), config)]
    with logging_to(run.log_file):
        if rescheduled:
            _LOG.warning("the learning-rate schedule changes from here on; the manifest records "
                         "the previous one.")  # fmt: skip
        for remark in (*(pairs.remarks if pairs else ()), *_of_classes(built, arrays), *changed):
            _LOG.warning(remark)
        result = fit(parts, run=run, seed=seed, config=dict(config), arrays=arrays)
    if first:
        trust = must_be_declared(config)
        outcome = _outcome(result.kimg, result.seconds, result.final_loss, run, trust=trust)
        print("\n" + table(outcome))
    return result.final_loss


def _latents(built: "Built", parts: "TrainingParts", run: "RunDirectory") -> dict[str, Any]:
    """Encode the data, if they are not cached, and what the manifest records of it.

    Raises:
        UsageError: The run is continued and was trained on other latents.
    """
    from flowexp.runs.encoded_data import KEY, recorded, restore
    from flowexp.training.fit import device_before

    autoencoder = built.autoencoder
    if not autoencoder.encodes:
        return {}
    autoencoder.device = device_before(parts.settings)
    before = run.manifest() if run.latest_checkpoint() is not None else None
    if before is not None:
        restore(autoencoder, before, run=run.path)
    found = recorded(autoencoder, built.dataset)
    if before is not None and before[KEY]["latents"] != found[KEY]["latents"]:
        raise UsageError(
            f"{run.path} was trained on other latents, with the fingerprint "
            f"{before[KEY]['latents']}; now they have {found[KEY]['latents']}.",
            key=KEY,
            remedy="Put the data and the autoencoder's weights back, or train a new run.",
        )
    return found


def _finished(going_on: "GoingOn", *, first: bool) -> float:
    """Print that the run is finished; returns the last loss."""
    from flowexp.runs.metrics_file import read_rows, training_seconds

    run, config = going_on.run, going_on.config
    rows = list(read_rows(run.metrics_file))
    loss = float((rows[-1].get("train/loss") if rows else None) or "nan")
    if first:
        kimg, seconds = going_on.kimg, training_seconds(rows)
        length = f"{kimg:g} of {config['trainer']['max_kimg']:g} kimg"
        trust = must_be_declared(config)
        outcome = _outcome(kimg, seconds, loss, run, trust=trust)
        print(table([("already finished", length), *outcome, ("continue", going_on.longer)]))
    return loss


def _choices(job: Job, origin: str | None) -> dict[str, str]:
    """The chosen options; options taken from a run have the names that the run recorded."""
    known = {} if origin is None else choices_of(origin)
    return {group: known.get(group, option) if option == "run" else option
            for group, option in job.choices.items()}  # fmt: skip


def _try_out(
    parts: "TrainingParts",
    config: dict[str, Any],
    run: "RunDirectory",
    arrays: "ImageArrays",
    *,
    by: "Author",
) -> None:
    """Run a trial step before trainings that are long or have outside parts.

    It is skipped when a run is continued unchanged. Outside metrics, which only an evaluation uses,
    are built once to find errors.
    """
    from flowexp.config.instantiate import instantiate
    from flowexp.runs.outside_parts import changed_since, outside_targets
    from flowexp.training.trial import LONG_STEPS, try_out

    metrics = config.get("metric") or {}
    own = {name: metric for name, metric in metrics.items() if metric and outside_targets(metric)}
    instantiate(own, key="metric", by=by)
    if not outside_targets(config) and parts.settings.total_steps < LONG_STEPS:
        return
    if run.config_file.exists() and run.latest_checkpoint() is not None:
        before, now = (without(c, _OF_LENGTH) for c in (run.config(), config))
        if not differing(before, now) and not any(changed_since(run.manifest(), config)):
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
    kimg: float, seconds: float, loss: float, run: "RunDirectory", *, trust: Sequence[str]
) -> list[tuple[str, str]]:
    speed = f"{seconds:.0f} s at {1000 * kimg / max(seconds, 1e-9):.0f} images/s"
    return [
        ("trained", f"{kimg:g} kimg in {speed}, final loss {loss:.4g}"),
        ("run directory", shown(run.path)),
        ("sample grids", shown(run.samples)),
        ("metrics", shown(run.metrics_file)),
        ("next", command("eval", trust=trust, run=shown(run.path))),
    ]


main = partial(launch, "train", train, after_sweep=after_training)
