"""Stores of pairs: written shard by shard by any number of processes and starts, and verified."""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from flowexp.config.later_options import without_later_options
from flowexp.config.renamed import present
from flowexp.config.stored import read_stored
from flowexp.data.pair_store import PairManifest, PairStore, read_digests
from flowexp.errors import UsageError
from flowexp.files import file_sha256, write_json, write_npz, write_text
from flowexp.locks import FileLock
from flowexp.pairs.makers import Array, PairMaker
from flowexp.pipeline import Pipeline, Processes
from flowexp.progress import counted
from flowexp.tree import leaves, plain, without

__all__ = ["verify", "write_store"]

Make = Callable[[npt.NDArray[np.int64]], Mapping[str, Array]]

# The number of pairs, the place of a run and the name of its checkpoint do not change the kind.
_FREE = ("manifest.num", "manifest.ranges", "manifest.teacher.run", "manifest.teacher.checkpoint",
         "config.run", "config.checkpoint")  # fmt: skip

_LEVELS = 1
_LEVEL = 2.0 / 255.0
# Devices round differently, and a few pixels at edges are sensitive to that.
_SHARE = 0.99
_DIGITS = 12
"""Of a hash that is shown."""


def write_store(
    folder: Path,
    *,
    manifest: PairManifest,
    config: Mapping[str, Any],
    make: Make,
    processes: Processes | None = None,
) -> None:
    """Make the missing shards of a store; every process must call this.

    A shard is a file that is complete or absent and depends only on manifest and config, so a store
    is the same, byte for byte, after any number of kills and for any number of processes. A store
    may be continued with more pairs of the same kind.

    ``config`` holds the parts that make the pairs, in plain builtins, and ``make`` gives the
    columns of the pairs with given seeds or positions.

    Raises:
        UsageError: The folder holds pairs of another kind, or another process is writing there.
    """
    processes = processes or Processes()
    with _begin(folder, manifest, plain(config)) if processes.is_first else nullcontext():
        processes.barrier()
        recorded = read_digests(folder)
        own = {}
        shards = processes.share(list(manifest.shards().items()))
        unit = "pairs" if processes.world_size == 1 else "pairs in the first process"
        with counted("made", total=sum(len(m) for _, m in shards), unit=unit) as task:
            done = 0
            for name, members in shards:
                known = recorded.get(name)
                digest = _digest_if_done(folder / name, members, manifest.identity, known)
                done += len(members)
                if digest is None:
                    write_npz(folder / name, make(members))
                    digest = file_sha256(folder / name)
                    task.reach(done)  # a maker need not have reported them
                else:
                    task.advance(len(members), made=False)
                own[name] = digest
        gathered = processes.gather(own)
        if gathered is not None:
            digests = {name: digest for part in gathered for name, digest in part.items()}
            write_json(folder / "digests.json", dict(sorted(digests.items())))
        processes.barrier()


def verify(store: PairStore, *, maker: PairMaker, teacher: Pipeline, count: int = 4) -> None:
    """Make ``count`` evenly spaced pairs of a store again by its ``maker`` and ``teacher``.

    Their labels must be equal, and at least 99 % of their values within one of 256 levels.

    Raises:
        UsageError: The teacher makes other pairs of these seeds, or a shard is damaged.
    """
    stored = store.some(count)
    again = maker.make(teacher, stored[store.manifest.identity])
    for name, column in again.items():
        if name == "nfe":
            continue
        if name not in stored or not _alike(stored[name], column):
            raise UsageError(
                f"{store.path} does not match {store.manifest.teacher['run']}: {name} of "
                f"{store.manifest.identity} {stored[store.manifest.identity].tolist()} differ.",
                key="pairs",
                remedy="Make the pairs again with flowexp pairs.",
            )


def _begin(folder: Path, manifest: PairManifest, config: dict[str, Any]) -> FileLock:
    """Start the folder, or check that it is this store's; returns its lock, which is held."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder)
    if not lock.acquire(wait=False):
        raise UsageError(
            f"another process is making pairs in {folder}.",
            key="dirs.run",
            remedy="Wait until it has ended, choose another folder, or share one start among "
            "processes with torchrun.",
        )
    for unfinished in folder.glob(".*.*"):
        if unfinished.suffix in (".npz", ".json", ".yaml"):
            unfinished.unlink()
    if (folder / "manifest.json").exists():
        _refuse_another_kind(folder, manifest, config)
    else:
        write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    write_json(folder / "manifest.json", manifest.to_dict())
    return lock


def _refuse_another_kind(folder: Path, manifest: PairManifest, config: dict[str, Any]) -> None:
    try:
        before = PairManifest.from_dict(
            json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        )
        stored = read_stored(folder / "config.yaml")
    except (OSError, ValueError, UsageError) as error:
        raise UsageError(
            f"{folder} holds a damaged pair store ({error}).",
            key="dirs.run",
            remedy="Choose another folder with dirs.run=...",
        ) from error
    # Stores that an earlier version began are continued.
    own = present(config)
    earlier, now = (without_later_options(present(c), user=own) for c in (stored, config))
    old = {"manifest": plain(before.to_dict()), "config": earlier}
    new = {"manifest": plain(manifest.to_dict()), "config": now}
    unknown = [f"manifest.{part}" for part in ("start", "sampler", "guidance") if part in config]
    unknown += [] if "data" in before.teacher else ["manifest.teacher.data"]
    differences = list(_differences(old, new, (*_FREE, *unknown)))
    if differences:
        raise UsageError(
            f"{folder} holds pairs of another kind ({'; '.join(differences[:4])}).",
            key="dirs.run",
            remedy="Choose another folder with dirs.run=...; one store is one teacher (of one "
            "checkpoint), one sampler and one guidance.",
        )
    members = before.members()
    if not np.array_equal(manifest.members()[: len(members)], members):
        raise UsageError(
            f"{folder} holds {manifest.identity} {before.members_text()}, which are not the first "
            f"of {manifest.members_text()}.",
            key="seeds",
            remedy="Name those and more, or choose another folder with dirs.run=...; a training "
            "accepts several: pairs=[A,B].",
        )


def _differences(old: Any, new: Any, free: Sequence[str]) -> Iterator[str]:  # noqa: ANN401
    before, after = (dict(leaves(without(side, free))) for side in (old, new))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            digits = _DIGITS if key.endswith("sha256") else None
            then, now = (str(side.get(key))[:digits] for side in (before, after))
            yield f"{key.partition('.')[2]}: {then} -> {now}"


def _digest_if_done(
    file: Path, members: npt.NDArray[np.int64], identity: str, recorded: str | None
) -> str | None:
    """sha256 of a shard if it exists and is right, else None."""
    try:
        digest = file_sha256(file)
        with np.load(file, allow_pickle=False) as columns:
            same = np.array_equal(columns[identity], members)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return digest if same and recorded in (None, digest) else None


def _alike(stored: npt.NDArray[Any], again: npt.NDArray[Any]) -> bool:
    if stored.shape != again.shape or stored.dtype != again.dtype:
        return False
    if stored.dtype == np.int64:
        return np.array_equal(stored, again)
    tolerance = _LEVELS if stored.dtype == np.uint8 else _LEVEL
    near = np.abs(stored.astype(np.float64) - again.astype(np.float64)) <= tolerance
    return bool(near.mean() >= _SHARE)
