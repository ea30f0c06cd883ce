"""Stores of pairs as the data of a training: opened, checked against their teachers, joined."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.data.pair_store import PairStore, join_stores
from flowexp.errors import UsageError
from flowexp.files import file_sha256
from flowexp.networks.base import label_dim_of
from flowexp.runs.encoded_data import space
from flowexp.runs.run_directory import RunDirectory

if TYPE_CHECKING:
    from flowexp.data import ImageArrays
    from flowexp.runs.assemble import Built

__all__ = ["TrainingPairs", "open_pairs"]


@dataclass(frozen=True, eq=False)
class TrainingPairs:
    """What a training is shown instead of a data set.

    Attributes:
        parents: For the run's manifest: the stores and their teachers.
        remarks: What could not be checked, for the log.
    """

    arrays: "ImageArrays"
    parents: dict[str, dict[str, Any]]
    remarks: tuple[str, ...]


def open_pairs(config: Mapping[str, Any], parts: "Built", *, check: bool) -> TrainingPairs | None:
    """The pairs that ``config['pairs']`` names, or None if it names none.

    To ``check`` them, some are made again with their teacher; one process is enough.

    Raises:
        UsageError: A store is missing, unfinished, damaged, not what its teacher makes, or does not
            fit the model.
    """
    named = config["pairs"]
    if named is None:
        return None
    folders = [named] if isinstance(named, str) else list(named)
    stores = [PairStore.open(folder) for folder in folders]
    for store in stores:
        _require_fit(store, parts)
    arrays = join_stores(stores, parts.model.path.source)
    distinct = {store.path.resolve(): store for store in stores}.values()
    remarks = [_check(store) for store in distinct] if check else []
    return TrainingPairs(
        arrays,
        {f"pairs.{number}": _identity(store) for number, store in enumerate(stores)},
        tuple(remark for remark in remarks if remark),
    )


def _require_fit(store: PairStore, parts: "Built") -> None:
    manifest = store.manifest
    if manifest.shape != parts.pipeline.shape:
        raise UsageError(
            f"{store.path} holds samples of shape {manifest.shape}, but those of this training are "
            f"{parts.pipeline.shape}.",
            key="pairs",
            remedy="Train with the teacher's dataset and autoencoder.",
        )
    latents, own = manifest.teacher.get("autoencoder"), parts.autoencoder.identity()
    if latents != own:
        raise UsageError(
            f"the teacher of {store.path} was trained on {space(latents)}, but this training is "
            f"on {space(own)}.",
            key="pairs",
            remedy="Train with the teacher's autoencoder.",
        )
    label_dim = label_dim_of(parts.network)
    if label_dim not in (0, manifest.num_classes):
        raise UsageError(
            f"the network expects {label_dim} classes, but {store.path} has "
            f"{manifest.num_classes or 'no labels'}.",
            key="pairs",
            remedy=f"Set network.label_dim={manifest.num_classes}.",
        )


def _identity(store: PairStore) -> dict[str, Any]:
    teacher = store.manifest.teacher
    return {
        "path": str(store.path),
        "sha256": file_sha256(store.path / "digests.json"),
        "count": len(store),
        "guidance": store.manifest.guidance,
        "teacher": {"run": teacher["run"], "sha256": teacher["sha256"]},
    }


def _check(store: PairStore) -> str | None:
    """Make some pairs again; what there is to say if the teacher is not at hand."""
    from flowexp.config.trust import Author
    from flowexp.pairs import verify
    from flowexp.runs.assemble import part_of
    from flowexp.runs.opening import open_run

    checkpoint = _teacher_checkpoint(store)
    if checkpoint is None:
        return (
            f"{store.path} was not compared with its teacher: {store.manifest.teacher['run']} has "
            f"no checkpoint with the recorded sha256 any more"
        )
    place = {"run": str(checkpoint.parent.parent), "checkpoint": checkpoint.stem, "device": "auto"}
    config = {**store.config(), **place, "batch_size": store.manifest.batch_size}
    by = Author.of(store.path / "config.yaml")
    maker = part_of(config, "start", by=by)
    opened = open_run(config, by=by)
    if maker.needs_data:
        try:
            opened.built.dataset.locate()
        except UsageError as error:
            return f"{store.path} was not compared with its teacher: {error.problem}"
    verify(store, maker=maker, teacher=opened.pipeline)
    return None


def _teacher_checkpoint(store: PairStore) -> Path | None:
    """The file with the teacher's weights: where it was, or above the store, if both moved."""
    teacher = store.manifest.teacher
    for folder in (Path(teacher["run"]), store.path.resolve().parent):
        run = RunDirectory(folder)
        named = run.checkpoints / f"{teacher['checkpoint']}.ckpt"
        for file in (named, *run.numbered_checkpoints()):
            if file.is_file() and file_sha256(file) == teacher["sha256"]:
                return file
    return None
