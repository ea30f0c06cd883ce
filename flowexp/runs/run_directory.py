"""The folder of a run: what is in it, how it is started, continued and read."""

import json
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from flowexp.config.differences import changes_in_words, differing
from flowexp.config.override_text import command
from flowexp.config.run_folders import require_run
from flowexp.config.stored import read_stored
from flowexp.config.trust import must_be_declared
from flowexp.errors import UsageError
from flowexp.files import shown, write_json, write_text
from flowexp.locks import FileLock
from flowexp.processes import is_first_process
from flowexp.tree import digest, plain, without

__all__ = ["FREE_KEYS", "GROWING_KEYS", "changed_keys", "config_digest", "RunDirectory"]

FREE_KEYS: tuple[str, ...] = (
    "callbacks", "logger", "dirs", "hydra", "launcher", "debug", "local", "sampler", "guidance",
    "task", "metric", "experiment", "trainer.accelerator", "trainer.devices", "trainer.num_nodes",
    "trainer.strategy", "trainer.micro_batch", "trainer.log_every", "trainer.checkpoint_kimg",
    "trainer.keep_checkpoints", "trainer.snapshot_kimg",
    "trainer.threads",
)  # fmt: skip
"""Keys (and everything below them) that change neither the weights nor what they mean.

Devices, threads and micro-batches keep the global batch and its draws; they change the weights by
floating-point reordering only. What samples and measures can change at any time: weights do not
depend on it.
"""

_REORDERING_KEYS = ("trainer.compile", "trainer.channels_last")
"""Keys that a resumed run may change for the same reason; identities of jobs have them, though."""

GROWING_KEYS: tuple[str, ...] = ("trainer.max_kimg",)
"""Keys that may grow: what is trained so far stays true. Where a learning-rate schedule depends on
the length, its own keys differ as well and the run is refused."""


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose change makes another run, each with its old and new value."""
    return {
        key: values
        for key, values in differing(old, new).items()
        if not _is_free(key) and not _has_grown(key, values)
    }


def config_digest(config: Mapping[str, Any]) -> str:
    """sha256 (hex) of a configuration, by which processes tell that they do the same.

    Output folders are left out: only the first process's counts, and theirs may hold the time.
    """
    return digest(without(plain(config), ("dirs", "hydra")))


def _is_free(key: str) -> bool:
    return any(f"{key}.".startswith(f"{free}.") for free in (*FREE_KEYS, *_REORDERING_KEYS))


def _has_grown(key: str, values: tuple[Any, Any]) -> bool:
    old, new = values
    numbers = isinstance(old, int | float) and isinstance(new, int | float)
    return key in GROWING_KEYS and numbers and new > old


_SHOWN_CHANGES = 8

# One lock per folder and process, shared by all that have the folder started and freed with them.
_LOCKS: weakref.WeakValueDictionary[Path, FileLock] = weakref.WeakValueDictionary()


class RunDirectory:
    """The folder of a run; :meth:`start` makes it, :meth:`open` finds it.

    Args:
        path: The folder. Nothing is read or written.

    Attributes:
        config_file: The resolved configuration.
        overrides_file: What the command line changed at the latest start.
        manifest_file: Versions, device, data and parents of the first start.
        log_file: The log, appended to by every start.
        metrics_file: What training measured, one JSON object a line; the record that loggers copy.
        results_file: What evaluations measured.
        checkpoints: Folder of the checkpoints; ``last.ckpt`` is the newest.
        snapshots: Folder of the averages kept while training, which nothing removes.
        samples: Folder of sample grids.
        calibrations: What samplers measured on this run's model.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.overrides_file = self.path / "overrides.yaml"
        self.manifest_file = self.path / "manifest.json"
        self.log_file = self.path / "log.txt"
        self.metrics_file = self.path / "metrics.jsonl"
        self.results_file = self.path / "results.json"
        self.checkpoints = self.path / "checkpoints"
        self.snapshots = self.path / "snapshots"
        self.samples = self.path / "samples"
        self.calibrations = self.path / "calibrations"
        self._lock: FileLock | None = None

    @classmethod
    def start(
        cls,
        path: Path | str,
        *,
        config: Mapping[str, Any],
        overrides: Sequence[str] = (),
        manifest: Mapping[str, Any] | None = None,
        judged: Sequence[str] = (),
    ) -> Self:
        """Make the folder of a new run, or reopen that of the same run to continue it.

        Only the first process of a run writes; the others get the folder as it is. While the object
        lives, no other run can start in the folder. The manifest of the first start is kept; it
        notes what groups that were ``judged``, and may change, have been until now.

        Raises:
            UsageError: The folder belongs to a run of another configuration or on other data,
                cannot be written, or is in use by another process.
        """
        run, own = cls(path), plain(config)
        if not is_first_process():
            return run
        try:
            if run.config_file.exists():
                run._refuse_another_config(own, judged)
                run._refuse_other_data(manifest or {})
            for folder in (run.path, run.checkpoints, run.samples):
                folder.mkdir(parents=True, exist_ok=True)
            run._lock = run._locked()
            for folder in (run.checkpoints, run.snapshots):
                for unfinished in folder.glob(".*.ckpt"):
                    unfinished.unlink()
            for group in judged:
                run._note_change(group)
            write_text(run.config_file, yaml.safe_dump(own, sort_keys=False))
            write_text(run.overrides_file, yaml.safe_dump(list(overrides)))
            if not run.manifest_file.exists():
                write_json(run.manifest_file, dict(manifest or {}))
        except OSError as error:
            raise UsageError(
                f"the run directory {run.path} cannot be written ({error.strerror or error}).",
                key="dirs.run",
                remedy="Choose another with dirs.run=...",
            ) from error
        return run

    def _locked(self) -> FileLock:
        """The lock of the folder, unless another process holds it."""
        folder = self.path.resolve()
        lock = _LOCKS.get(folder)
        if lock is None:
            lock = FileLock(folder)
            if not lock.acquire(wait=False):
                raise UsageError(
                    f"another process is training in {self.path}.",
                    key="dirs.run",
                    remedy="Wait until it has ended, or choose another directory.",
                )
            _LOCKS[folder] = lock
        return lock

    def is_in_use(self) -> bool:
        """Whether a training, in this process or another, has started in the folder."""
        folder = self.path.resolve()
        if folder in _LOCKS:
            return True
        lock = FileLock(folder)
        free = lock.acquire(wait=False)
        if free:
            lock.release()
        return not free

    def _note_change(self, group: str) -> None:
        """Record in the manifest the config of a group up to the newest checkpoint."""
        manifest = self.manifest()
        until = [file.stem for file in self.numbered_checkpoints()[-1:]] or ["last"]
        entry = {"until": until[0], group: self.config().get(group)}
        changes = [*manifest.get("changes", []), entry]
        write_json(self.manifest_file, {**manifest, "changes": changes})

    def _refuse_another_config(self, config: dict[str, Any], judged: Sequence[str]) -> None:
        changed = {
            key: values
            for key, values in changed_keys(self.config(), config).items()
            if key.partition(".")[0] not in judged
        }
        if not changed:
            return
        text = changes_in_words(changed, most=_SHOWN_CHANGES)
        raise UsageError(
            f"{self.path} holds a run of another configuration ({text}).",
            key="dirs.run",
            remedy="Choose another directory with dirs.run=...",
        )

    def _refuse_other_data(self, now: Mapping[str, Any]) -> None:
        """Refuse to go on with other data, or another teacher, than those of the first start."""
        before = self.manifest()
        pillow = [start.get("packages", {}).get("pillow") for start in (before, now)]
        other = None not in pillow and pillow[0] != pillow[1]
        decoder = " (Pillow {} then, {} now)".format(*pillow) if other else ""
        for key, name in (("dataset", "dataset"), ("path.source.dataset", "source")):
            prints = [start.get(f"{name}_fingerprint") for start in (before, now)]
            if None not in prints and prints[0] != prints[1]:
                old, new = (_data_in_words(start, name) for start in (before, now))
                raise UsageError(
                    f"{self.path} was trained on {old}, which are now {new}: they, or how they "
                    f"are read{decoder}, have changed since its first start.",
                    key=key,
                    remedy="Bring them back as they were, or train anew in another directory with "
                    "dirs.run=... (init=RUN starts from the weights of this one).",
                )
        for key, (old, new) in _changed_parents(before, now).items():
            raise UsageError(
                f"{self.path} was trained with weights of sha256 {old} as {key}, which now are "
                f"{new}.",
                key=key,
                remedy="Bring that run back as it was, or train anew in another directory with "
                "dirs.run=...",
            )

    def manifest(self) -> dict[str, Any]:
        """The manifest of the first start; empty if there is none that can be read."""
        try:
            content = json.loads(self.manifest_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def record(self, **facts: Any) -> None:  # noqa: ANN401 -- anything JSON can hold
        """Add facts to the manifest after the run has started."""
        write_json(self.manifest_file, {**self.manifest(), **facts})

    @classmethod
    def open(cls, path: Path | str, *, key: str = "run", checkpoint: bool = True) -> Self:
        """The folder of an existing run, which by default must have a checkpoint.

        Raises:
            UsageError: It is not a run directory, or has no checkpoint; the message names ``key``.
        """
        run = cls(path)
        require_run(run.path, key=key, checkpoint=checkpoint)
        return run

    def config(self) -> dict[str, Any]:
        """The resolved configuration; the file must be a YAML mapping."""
        found: dict[str, Any] = read_stored(self.config_file)
        return found

    def overrides(self) -> list[str]:
        """What the command line changed at the latest start."""
        return [str(text) for text in read_stored(self.overrides_file, kind=list)]

    def numbered_checkpoints(self) -> list[Path]:
        """The kept checkpoints besides ``last.ckpt``, oldest first."""
        return sorted(self.checkpoints.glob("step-*.ckpt"))

    def kept_snapshots(self) -> list[Path]:
        """The snapshots, oldest first."""
        return sorted(self.snapshots.glob("snapshot-*.ckpt"))

    @property
    def continued_by(self) -> str:
        """The command that goes on with the training, whatever command started it."""
        # a trial before a training has no config
        trust = must_be_declared(self.config()) if self.config_file.is_file() else []
        return command("train", trust=trust, run=shown(self.path))

    def latest_checkpoint(self) -> Path | None:
        """The newest checkpoint, or None."""
        there = [*self.numbered_checkpoints(), *self.checkpoints.glob("last.ckpt")]
        return there[-1] if there else None

    def checkpoint(self, name: str = "last", *, key: str = "checkpoint") -> Path:
        """The file of a checkpoint or a snapshot.

        ``name`` is ``last``, the number of a checkpoint's step, ``snapshot-`` and that of a
        snapshot's, or the name of a file in ``checkpoints/`` or ``snapshots/``.

        Raises:
            UsageError: There is none of that name; the message lists those there are.
        """
        stem = name.removesuffix(".ckpt")
        kind, _, number = stem.rpartition("-")
        if number.isdecimal() and kind in ("", "step", "snapshot"):
            stem = f"{kind or 'step'}-{int(number):09d}"
        folder = self.snapshots if kind == "snapshot" else self.checkpoints
        path = self.latest_checkpoint() if stem == "last" else folder / f"{stem}.ckpt"
        if path is not None and path.is_file():
            return path
        there = [file.stem for file in sorted(self.checkpoints.glob("[!.]*.ckpt"))]
        there += [file.stem for file in self.kept_snapshots()]
        raise UsageError(
            f"the run {self.path} has no checkpoint {name!r}.",
            key=key,
            remedy=f"It has: {', '.join(there)}." if there else "It has none at all.",
        )

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"


def _data_in_words(manifest: Mapping[str, Any], name: str) -> str:
    """Number and fingerprint of the data that a start read."""
    fingerprint, size = (manifest.get(f"{name}_{what}") for what in ("fingerprint", "size"))
    return f"{'data' if size is None else f'{size} images'} with the fingerprint {fingerprint}"


def _changed_parents(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, tuple[str, str]]:
    """Frozen models that shape the weights, by their keys, whose own weights are others now."""
    named = [start.get("parents") for start in (before, now)]
    # Imported models have a list of parents.
    sides = [parents if isinstance(parents, Mapping) else {} for parents in named]
    changed = {}
    for key in sides[0].keys() & sides[1].keys():
        old, new = (side[key].get("sha256") for side in sides)
        # The data of pairs have a fingerprint, and init counts at the first start alone.
        ignored = key == "init" or key.startswith("pairs.") or _is_free(key)
        if old != new and not ignored:
            changed[key] = (str(old), str(new))
    return changed
