"""Calibrations measured in parts: one file per part, shared by processes, resumed after a kill."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowexp.calibration.base import Progress, Subject
from flowexp.files import write_json, write_npz
from flowexp.pipeline import Processes

__all__ = ["PartFiles", "measure_once", "short_digest"]

_REPORTS = 10


class PartFiles:
    """The finished parts of a result, in a hidden folder beside it.

    Args:
        result: Path of the result without suffix.
        processes: The processes that share the parts.
        progress: Called with a line now and then.
    """

    def __init__(self, result: Path, processes: Processes, progress: Progress) -> None:
        self.folder = result.with_name(f".{result.name}")
        self.processes = processes
        self.progress = progress

    def run(
        self, name: str, count: int, measure: Callable[[int], dict[str, Tensor]]
    ) -> list[dict[str, Tensor]]:
        """The tensors of parts 0 .. count - 1, measured or read back, on every process."""
        missing = [i for i in range(count) if not self._file(name, i).is_file()]
        if 0 < len(missing) < count:
            self.progress(f"{name}: {count - len(missing)} parts are there already")
        # Every process sees the same files before the first new one is written.
        self.processes.barrier()
        own = self.processes.share(missing)
        for done, i in enumerate(own, start=1):
            write_npz(self._file(name, i), {k: v.cpu().numpy() for k, v in measure(i).items()})
            if done * _REPORTS // len(own) > (done - 1) * _REPORTS // len(own):
                self.progress(f"{name}: {done} of {len(own)} parts")
        self.processes.barrier()
        return [self._read(name, i) for i in range(count)]

    def close(self) -> None:
        """Remove the parts; every process must call this."""
        self.processes.barrier()
        if self.processes.is_first:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.processes.barrier()

    def _file(self, name: str, i: int) -> Path:
        return self.folder / f"{name}_{i:05d}.npz"

    def _read(self, name: str, i: int) -> dict[str, Tensor]:
        with np.load(self._file(name, i)) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def measure_once(
    subject: Subject,
    file: Path,
    manifest: Mapping[str, Any],
    *,
    measure: Callable[[PartFiles], Mapping[str, Tensor]],
    progress: Progress,
    parts_beside: str | None = None,
) -> None:
    """Measure and store a calibration, unless its manifest is there; every process must call this.

    Args:
        subject: The model and its pipeline.
        file: The file for the numbers; the manifest, written last, lies beside it as ``.json``.
        manifest: See :func:`flowexp.calibration.manifest_of`.
        measure: The numbers to store, measured in parts; called on every process.
        progress: Called with a line now and then.
        parts_beside: Name of the parts' folder, if they depend on more than the file's name.
    """
    if file.with_suffix(".json").is_file():
        return
    result = file.with_name(parts_beside or file.stem)
    parts = PartFiles(result, subject.processes, progress)
    tensors = measure(parts)
    if subject.processes.is_first:
        write_npz(file, {key: tensor.numpy() for key, tensor in tensors.items()})
        write_json(file.with_suffix(".json"), dict(manifest))
    parts.close()


def short_digest(manifest: Mapping[str, Any]) -> str:
    """Eight hex digits over what the numbers depend on."""
    text = json.dumps([manifest["identity"], manifest["settings"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
