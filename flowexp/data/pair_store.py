"""Noise-data pairs on disk: the layout of a store, and how it is read.

A store is a folder: ``manifest.json`` (how the pairs were made), ``config.yaml`` (the parts that
made them), ``shard_000000.npz`` ... (``images``, ``labels``, ``nfe``, the identity of each pair,
that is its ``seeds`` or the ``index`` of its picture in a data set, and ``noise`` where the draws
are stored), and ``digests.json`` (sha256 of every shard), which is written last. Shard k holds the
k-th ``shard_size`` pairs; its bytes depend only on manifest and config.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from flowexp.data.base import ImageArrays
from flowexp.data.decoded import decode_once
from flowexp.data.pair_manifest import PairManifest
from flowexp.data.partners import Partners, SeededPartners, StoredPartners
from flowexp.errors import UsageError
from flowexp.paths import Source

__all__ = ["PairStore", "read_digests"]

Array = npt.NDArray[Any]


_IN_MEMORY_BYTES = 1 << 30


class PairStore:
    """A finished store.

    Args:
        path: The folder.
        manifest: How the pairs were made.
        digests: File name -> sha256 (hex) of every shard.
    """

    def __init__(self, path: Path, *, manifest: PairManifest, digests: Mapping[str, str]) -> None:
        self.path = path
        self.manifest = manifest
        self.digests = dict(digests)

    @classmethod
    def open(cls, path: Path | str, *, key: str = "pairs") -> "PairStore":
        """The store in a folder, complete by its manifest; contents are checked when read.

        Args:
            path: The folder.
            key: Config key to name in messages.

        Raises:
            UsageError: The folder is not a store, or not finished.
        """
        folder = Path(path)
        try:
            manifest = PairManifest.from_dict(json.loads((folder / "manifest.json").read_text()))
        except (OSError, ValueError) as error:
            reason = "it has no manifest.json" if isinstance(error, OSError) else error
            raise UsageError(
                f"{folder} is not a store of pairs ({reason}).",
                key=key,
                remedy="Make one with flowexp pairs run=DIR; it is the folder DIR/pairs.",
            ) from error
        digests = read_digests(folder)
        wanted = manifest.shards()
        there = sum(name in digests and (folder / name).is_file() for name in wanted)
        if there < len(wanted):
            raise UsageError(
                f"{folder} is not finished: only {there} of {len(wanted)} shards are complete.",
                key=key,
                remedy="Repeat the flowexp pairs command; it makes only what is missing.",
            )
        return cls(folder, manifest=manifest, digests={name: digests[name] for name in wanted})

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over the digests of all shards and the source."""
        digest = hashlib.sha256(f"{self.manifest.noise} {self.manifest.source}\n".encode())
        for name, sha256 in sorted(self.digests.items()):
            digest.update(f"{name} {sha256}\n".encode())
        return digest.hexdigest()

    def config(self) -> dict[str, Any]:
        """The parts that made the pairs, as plain config nodes.

        Raises:
            UsageError: The file is missing or damaged.
        """
        try:
            content = yaml.safe_load((self.path / "config.yaml").read_text())
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(f"{self.path}/config.yaml cannot be read.", key="pairs") from error
        return dict(content)

    def shards(self) -> Iterator[dict[str, Array]]:
        """The columns of every shard, in order, each checked against its digest.

        Raises:
            UsageError: A shard is damaged or does not match the manifest.
        """
        for name, members in self.manifest.shards().items():
            yield self._shard(name, members)

    def _shard(self, name: str, members: npt.NDArray[np.int64]) -> dict[str, Array]:
        content = (self.path / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.digests[name]:
            raise self._damaged(name, "its sha256 does not match")
        with np.load(io.BytesIO(content), allow_pickle=False) as columns:
            shard = {key: columns[key] for key in columns.files}
        if not np.array_equal(shard[self.manifest.identity], members):
            raise self._damaged(name, "its pairs are not those of the manifest")
        return shard

    def _damaged(self, name: str, what: str) -> UsageError:
        return UsageError(
            f"{self.path / name} was changed or damaged: {what}.",
            key="pairs",
            remedy="Remove that file and repeat the flowexp pairs command.",
        )

    def some(self, count: int) -> dict[str, Array]:
        """The columns of ``count`` pairs, evenly spaced over the store (all, if it has fewer)."""
        rows = np.unique(np.linspace(0, len(self) - 1, count).round().astype(np.int64))
        size = self.manifest.shard_size
        names = list(self.manifest.shards().items())
        found: list[dict[str, Array]] = []
        for number in np.unique(rows // size):
            shard = self._shard(*names[number])
            inside = rows[rows // size == number] - number * size
            found.append({key: column[inside] for key, column in shard.items()})
        return {key: np.concatenate([part[key] for part in found]) for key in found[0]}

    def column(self, name: str) -> Array:
        """One column of all pairs; not checked against the digests."""
        parts = []
        for file in self.manifest.shards():
            with np.load(self.path / file, allow_pickle=False) as columns:
                parts.append(columns[name])
        return np.concatenate(parts)

    def arrays(self, source: Source) -> ImageArrays:
        """The pairs for training; shards are checked against their digests.

        Args:
            source: Source of the training path.

        Raises:
            UsageError: A shard is damaged, or seeds belong to another source.
        """
        self._require_source(source)
        columns: dict[str, list[Array]] = {}
        large = self.manifest.images == "uint8" and self._image_bytes() > _IN_MEMORY_BYTES
        images: Array
        if large:
            images = self._mapped_images()
        else:
            images = np.empty((len(self), *self.manifest.shape), dtype=self.manifest.images)
        filled = 0
        for shard in self._small_columns() if large else self.shards():
            for key, column in shard.items():
                if key == "images":
                    images[filled : filled + len(column)] = column
                    filled += len(column)
                else:
                    columns.setdefault(key, []).append(column)
        joined = {key: np.concatenate(parts) for key, parts in columns.items()}
        return ImageArrays(
            images,
            joined.get("labels"),
            self.manifest.num_classes,
            self.fingerprint,
            f"pairs/{self.path.name}",
            partners=self._partners(joined, source),
        )

    def _partners(self, columns: Mapping[str, Array], source: Source) -> Partners:
        if self.manifest.noise == "arrays":
            return StoredPartners(columns["noise"])
        return SeededPartners(columns["seeds"], source=source, shape=self.manifest.shape)

    def _require_source(self, source: Source) -> None:
        if self.manifest.noise == "seeds" and source.identity() != self.manifest.source:
            raise UsageError(
                f"{self.path} holds seeds of draws from {self.manifest.source}, but the path's "
                f"source is {source!r}.",
                key="pairs",
                remedy="Train on the teacher's source, or make the pairs with start.noise=arrays.",
            )

    def _image_bytes(self) -> int:
        return len(self) * int(np.prod(self.manifest.shape))

    def _mapped_images(self) -> Array:
        """All pictures behind one memory map, joined once and cached."""
        shape = (len(self), *self.manifest.shape)
        return decode_once(
            f"pairs_{self.fingerprint}",
            shape=shape,
            chunks=lambda: (shard["images"] for shard in self.shards()),
            in_memory=False,
            origin=str(self.path),
        ).images

    def _small_columns(self) -> Iterator[dict[str, Array]]:
        """All columns except the pictures, which are not read."""
        for name in self.manifest.shards():
            with np.load(self.path / name, allow_pickle=False) as columns:
                yield {key: columns[key] for key in columns.files if key != "images"}


def read_digests(folder: Path) -> dict[str, str]:
    """The recorded sha256 of every shard; empty while a store is not finished."""
    try:
        return dict(json.loads((folder / "digests.json").read_text()))
    except (OSError, ValueError):
        return {}
