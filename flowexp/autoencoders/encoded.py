"""A data set's latents: encoded once, cached, and drawn from their posteriors in training.

An entry of the cache is a folder ``latents/<key>`` of ``$FLOWEXP_CACHE`` with the means and
log-variances of a split as float32 ``.npy``, for both orientations if training mirrors images, and
``manifest.json``. The key is a digest of the facts in it: the pixels (which contain crop and size),
the encoder's weights, and the format. Scaling is applied when latents are read, so that recipes
with other constants share an entry.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flowexp.autoencoders.base import LatentAutoencoder
from flowexp.autoencoders.scaling import Statistics
from flowexp.data import Dataset, ImageArrays, as_data
from flowexp.data.digests import Array
from flowexp.data.locations import cache_dir, content_digest
from flowexp.data.posteriors import Posteriors
from flowexp.errors import UsageError
from flowexp.files import write_json
from flowexp.locks import locked
from flowexp.progress import counted
from flowexp.tree import digest

__all__ = ["EncodedDataset"]

_FORMAT = "flowexp-latents-1"
_MANIFEST = "manifest.json"
_MOMENTS = ("mean", "logvar")
_MIRRORED = ("mirrored_mean", "mirrored_logvar")
_KEY = "autoencoder"


class EncodedDataset(Dataset):
    """The latents of a data set, which belong to the same classes.

    Args:
        dataset: The images.
        autoencoder: What encodes them; it is given the statistics of the training split, unless it
            has some already.
    """

    def __init__(self, dataset: Dataset, *, autoencoder: LatentAutoencoder) -> None:
        super().__init__(
            name=f"{dataset.name}, encoded",
            shape=autoencoder.shape(dataset.shape),
            num_classes=dataset.num_classes,
            hflip=dataset.hflip,
            notice=dataset.notice,
        )
        self.dataset = dataset
        self.autoencoder = autoencoder
        self.class_names = dataset.class_names

    def locate(self) -> None:
        self.dataset.locate()

    def reading(self) -> dict[str, Any]:
        return self.dataset.reading()

    def _read(self) -> ImageArrays:
        return self._arrays(self.dataset.train(), split="train")

    def _read_heldout(self) -> ImageArrays | None:
        arrays = self.dataset.heldout()
        if arrays is None:
            return None
        self.train()  # for the statistics
        return self._arrays(arrays, split="heldout")

    def _arrays(self, arrays: ImageArrays, *, split: str) -> ImageArrays:
        entry = _Entry.of(arrays, self.autoencoder, mirrored=self.hflip)
        if self.autoencoder.statistics is None:
            self.autoencoder.statistics = entry.statistics
        posteriors = _Scaled(entry, self.autoencoder)
        content = [entry.content, self.autoencoder.identity(), self.autoencoder.sample_posterior]
        if self.autoencoder.scaling.measures:
            content.append([self.autoencoder.statistics.mean, self.autoencoder.statistics.std])
        return ImageArrays(
            entry.moments["mean"],
            arrays.labels,
            arrays.num_classes,
            digest(content),
            f"{self.name}/{split}",
            arrays.notice,
            posteriors=posteriors,
        )


class _Scaled(Posteriors):
    """The posteriors of an entry in the space of the flow."""

    def __init__(self, entry: "_Entry", autoencoder: LatentAutoencoder) -> None:
        self.entry = entry
        self.autoencoder = autoencoder

    def take(
        self, index: Array, *, mirrored: npt.NDArray[np.bool_] | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        scaling, statistics = self.autoencoder.scaling, self.autoencoder.statistics
        mean = scaling.scaled(self._rows("mean", index, mirrored), statistics).numpy()
        if not self.autoencoder.sample_posterior:
            return mean, None
        std = torch.exp(0.5 * self._rows("logvar", index, mirrored))
        return mean, scaling.spread(std, statistics).numpy()

    def _rows(self, name: str, index: Array, mirrored: npt.NDArray[np.bool_] | None) -> Tensor:
        rows = np.take(np.asarray(self.entry.moments[name]), index, axis=0)
        if mirrored is not None and mirrored.any():
            others = self.entry.moments[f"mirrored_{name}"]
            rows[mirrored] = np.take(np.asarray(others), index[mirrored], axis=0)
        return torch.from_numpy(rows)


@dataclass(frozen=True, eq=False)
class _Entry:
    """An entry of the cache: its arrays, (N, C, h, w), memory-mapped, by their names.

    ``content`` is a digest of the files.
    """

    moments: dict[str, Array]
    statistics: Statistics
    content: str

    @classmethod
    def of(cls, arrays: ImageArrays, autoencoder: LatentAutoencoder, *, mirrored: bool) -> "_Entry":
        """The entry of some images, which are encoded now if there is none.

        Raises:
            UsageError: There is no cache, it cannot be written, or the entry is not what its
                manifest says.
        """
        cache = cache_dir()
        if cache is None:
            raise _unwritable("there is no folder for latents, since the user has no home.")
        facts = {
            "format": _FORMAT,
            "images": arrays.fingerprint,
            "shape": [len(arrays), *autoencoder.shape(arrays.images.shape[1:])],
            "encoder": autoencoder.encoder_identity(),
            "dtype": "float32",
            "mirrored": mirrored,
        }
        folder = cache / "latents" / digest(facts)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # Of several processes one encodes, and the others wait for it.
            with locked(folder.with_suffix(".lock")):
                if not folder.exists():
                    _make(folder, arrays, autoencoder, facts)
        except OSError as error:
            raise _unwritable(f"latents cannot be written to {folder.parent} ({error}).") from error
        return cls._read(folder, facts)

    @classmethod
    def _read(cls, folder: Path, facts: Mapping[str, Any]) -> "_Entry":
        names = _names(bool(facts["mirrored"]))
        files = [folder / f"{name}.npy" for name in names]
        try:
            manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
            if manifest["facts"] != facts:
                raise _stale(
                    folder, "its manifest describes the latents of other images or weights"
                )
            if manifest["content"] != content_digest(files):
                raise _stale(folder, "its files are not those that its manifest describes")
            # Copy on write: torch requires writable arrays, and the file must not change.
            moments = {
                name: np.load(file, mmap_mode="c", allow_pickle=False)
                for name, file in zip(names, files, strict=True)
            }
            found = manifest["statistics"]
            statistics = Statistics(tuple(found["mean"]), tuple(found["std"]))
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            if isinstance(error, UsageError):
                raise
            raise _stale(folder, f"it cannot be read ({error})") from error
        return cls(moments, statistics, manifest["content"])


def _names(mirrored: bool) -> tuple[str, ...]:
    return (*_MOMENTS, *_MIRRORED) if mirrored else _MOMENTS


def _stale(folder: Path, why: str) -> UsageError:
    return UsageError(
        f"the cached latents in {folder} are refused: {why}.",
        key=_KEY,
        remedy=f"Remove that folder: the images are then encoded again. (rm -r {folder})",
    )


def _unwritable(problem: str) -> UsageError:
    return UsageError(problem, key=_KEY, remedy="Set FLOWEXP_CACHE to a writable folder.")


def _make(
    folder: Path, arrays: ImageArrays, autoencoder: LatentAutoencoder, facts: Mapping[str, Any]
) -> None:
    """Encode images into a folder beside, and rename it when it is complete."""
    beside = folder.with_name(f".{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed; the lock is held
    beside.mkdir()
    try:
        names = _names(bool(facts["mirrored"]))
        files = [beside / f"{name}.npy" for name in names]
        sums = _Sums(int(facts["shape"][1]))
        with ExitStack() as stack:
            outs = [stack.enter_context(file.open("xb")) for file in files]
            for out in outs:
                _header(out, facts["shape"])
            for moments in _encoded(arrays, autoencoder, mirrored=bool(facts["mirrored"])):
                sums.add(moments[0], moments[1])
                for out, values in zip(outs, moments, strict=True):
                    out.write(np.ascontiguousarray(values.numpy()).data)
        statistics = sums.statistics()
        content = {
            "facts": facts,
            "content": content_digest(files),
            "name": arrays.name,
            "statistics": {"mean": statistics.mean, "std": statistics.std},
        }
        write_json(beside / _MANIFEST, content)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _header(out: BinaryIO, shape: list[int]) -> None:
    # Written piece by piece: with a memory map a full disk kills the process.
    descr = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(out, descr)


def _encoded(
    arrays: ImageArrays, autoencoder: LatentAutoencoder, *, mirrored: bool
) -> Iterator[list[Tensor]]:
    """Mean and log-variance of each batch on the CPU, and then those of its mirror images."""
    size, device = autoencoder.batch_size, torch.device(autoencoder.device)
    unit = f"images of {arrays.name}"
    with counted("encoded", total=len(arrays), unit=unit) as task, torch.inference_mode():
        for first in range(0, len(arrays), size):
            levels = torch.from_numpy(np.array(arrays.images[first : first + size]))
            images = as_data(levels.to(device))
            found = list(autoencoder.moments(images))
            if mirrored:
                found += autoencoder.moments(images.flip(-1))
            yield [values.float().cpu() for values in found]
            task.advance(len(levels))


class _Sums:
    """Sums over pixels and items, per channel, in float64."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean, self.square, self.variance = torch.zeros(3, channels, dtype=torch.float64)

    def add(self, mean: Tensor, logvar: Tensor) -> None:
        """Add posteriors, each (B, C, h, w)."""
        mean, variance = mean.double(), logvar.double().exp()
        self.count += mean.numel() // mean.shape[1]
        self.mean = self.mean + mean.sum((0, 2, 3))
        self.square = self.square + mean.square().sum((0, 2, 3))
        self.variance = self.variance + variance.sum((0, 2, 3))

    def statistics(self) -> Statistics:
        """Those of draws from all posteriors."""
        mean = self.mean / self.count
        variance = self.square / self.count - mean.square() + self.variance / self.count
        return Statistics(tuple(mean.tolist()), tuple(variance.sqrt().tolist()))
