"""``flowexp pairs``: noise-data pairs of a run, in a store that any number of starts can finish."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.apps.terminal import logging_to, shown, table
from flowexp.config.application import Job, launch
from flowexp.config.later_options import without_later_options
from flowexp.config.override_text import command
from flowexp.config.trust import must_be_declared
from flowexp.errors import UsageError
from flowexp.progress import stage

if TYPE_CHECKING:
    from flowexp.data.pair_store import PairManifest
    from flowexp.pairs import PairMaker
    from flowexp.pipeline import Pipeline
    from flowexp.runs.opening import OpenedRun

__all__ = ["main"]

_LOG = logging.getLogger(__name__)

# Determines a pair, besides the manifest.
_STORED = (
    "run", "weights", "checkpoint", "weight_transform", "dataset", "autoencoder", "path",
    "network", "parameterization", "sampler", "guidance", "task", "latents", "start",
)  # fmt: skip


def pairs(job: Job) -> None:
    """Make the missing pairs of a store, and print the command that uses it."""
    with stage("loading PyTorch"):
        from flowexp.pairs import write_store

    from flowexp.pipeline import Processes, sampling_threads
    from flowexp.runs.assemble import part_of
    from flowexp.runs.opening import open_run, written_in
    from flowexp.tasks import refuse_given

    config = job.config
    maker = part_of(config, "start", by=written_in(config))
    opened = open_run(config)
    teacher = opened.pipeline
    refuse_given(teacher.task, what="pairs", key="run")
    if maker.needs_data:
        opened.built.dataset.locate()
    try:
        maker.check(teacher)
    except ValueError as error:
        raise UsageError(f"{error}.", key="start") from error
    manifest = _manifest(opened, config, maker)
    threads = sampling_threads(teacher, config["threads"], kept_in=job.directory / "threads.txt")
    with logging_to(opened.run.log_file), Processes.start() as processes, threads:
        if maker.needs_data and processes.is_first:
            if remark := opened.remark_on_data(teacher.data(), config):
                _LOG.warning("%s.", remark)
        write_store(
            job.directory,
            manifest=manifest,
            config={key: config[key] for key in _STORED},
            make=lambda members: maker.make(teacher, members),
            processes=processes,
        )
        if processes.is_first:
            trust = must_be_declared(config)
            print("\n" + table(_outcome(job.directory, manifest, opened, trust=trust)))


def _manifest(opened: "OpenedRun", config: Mapping[str, Any], maker: "PairMaker") -> "PairManifest":
    from flowexp.data.pair_store import PairManifest
    from flowexp.pipeline.pipeline import consecutive

    teacher, weights = opened.pipeline, opened.weights
    images, noise = maker.formats(teacher)
    latents = teacher.autoencoder.identity()
    return PairManifest(
        teacher={
            **({"data": teacher.data().fingerprint} if maker.needs_data else {}),
            **({"autoencoder": latents} if latents else {}),
            "run": str(opened.run.path),
            "checkpoint": weights.path.stem,
            "sha256": weights.sha256,
            "weights": weights.name,
            "transform": opened.transform,
        },
        start=_in_words(config["start"]),
        sampler=_in_words(config["sampler"]),
        # the words of stores that an earlier version began
        guidance=_in_words(without_later_options(config["guidance"])),
        labels=maker.label_distribution(teacher),
        source=teacher.model.path.source.identity(),
        shape=teacher.shape,
        num_classes=teacher.task.num_classes,
        images=images,
        noise=noise,
        identity=maker.identity,
        ranges=consecutive(_members(config, maker, teacher)),
        shard_size=config["shard_size"],
        batch_size=config["batch_size"],
    )


def _members(config: Mapping[str, Any], maker: "PairMaker", teacher: "Pipeline") -> Sequence[int]:
    """The seeds or positions of the pairs."""
    from flowexp.pipeline import parse_seeds

    most = None if maker.identity == "seeds" else len(teacher.data())
    if config["seeds"] is None:
        count = config["num"] if most is None else min(config["num"], most)
        return range(maker.first, maker.first + count)
    members = parse_seeds(config["seeds"])
    if most is not None and max(members) >= most:
        raise UsageError(
            f"there is no image {max(members)} among the {most} of the training split.",
            key="seeds",
            remedy=f"With from=data, seeds are positions: 0-{most - 1}.",
        )
    return members


def _in_words(node: Mapping[str, Any]) -> str:
    """Class and plain arguments of a config node, for people: ``ClassifierFree(scale=1.5)``."""
    name = str(node["_target_"]).rpartition(".")[2]
    shown = [
        f"{key}={_in_words(value) if isinstance(value, Mapping) else value}"
        for key, value in node.items()
        if not key.startswith("_") and (not isinstance(value, Mapping) or "_target_" in value)
    ]
    return f"{name}({', '.join(shown)})"


def _outcome(
    folder: Path, manifest: "PairManifest", opened: "OpenedRun", *, trust: Sequence[str]
) -> list[tuple[str, str]]:
    """The store in numbers, and the command that uses it."""
    from flowexp.data.pair_store import PairStore

    store = PairStore.open(folder, key="dirs.run")
    size = sum(file.stat().st_size for file in folder.glob("shard_*.npz"))
    # from=RUN keeps the path and parameterization that the weights were trained with
    use = {"from": shown(opened.run.path), "coupling": "pairs", "pairs": shown(folder)}
    return [
        ("pairs", f"{len(store)} at {store.column('nfe').mean():.4g} NFE, {size / 1e6:.1f} MB"),
        ("made from", manifest.start),
        ("teacher", f"{opened.weights_in_words}, {manifest.guidance}"),
        ("store", shown(folder)),
        ("next", command("train", trust=trust, **use)),
    ]


main = partial(launch, "pairs", pairs)
