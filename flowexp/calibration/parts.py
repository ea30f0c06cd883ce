"""Work in parts that survive a kill: a file per part, shared by processes."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowexp.calibration.base import Progress
from flowexp.files import write_npz
from flowexp.pipeline import Processes

__all__ = ["Parts", "short_digest"]

_REPORTS = 10


class Parts:
    """A hidden folder beside a result, with the finished parts of it.

    Args:
        result: Path of the result without suffix.
        processes: Who shares the parts.
        progress: Told now and then how far it is.
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
        """Remove the parts when nobody reads them any more; every process must call this."""
        self.processes.barrier()
        if self.processes.is_first:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.processes.barrier()

    def _file(self, name: str, i: int) -> Path:
        return self.folder / f"{name}_{i:05d}.npz"

    def _read(self, name: str, i: int) -> dict[str, Tensor]:
        with np.load(self._file(name, i)) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def short_digest(manifest: Mapping[str, Any]) -> str:
    """Eight hex digits over what the numbers depend on."""
    text = json.dumps([manifest["identity"], manifest["settings"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
