"""Noise-data pairs on disk: the layout of a store, and how it is read.

A store is a folder: ``manifest.json`` (how the pairs were made), ``config.yaml`` (the parts that
made them), ``shard_000000.npz`` ... (``images``, ``labels``, ``nfe``, the identity of each pair,
that is its ``seeds`` or the ``index`` of its image in a data set, and ``noise`` where the draws
are stored), and ``digests.json`` (sha256 of every shard), which is written last. Shard k holds the
k-th ``shard_size`` pairs; its bytes depend only on manifest and config.
"""

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from flowexp.config.stored import PAIRS_FORMAT, read_manifest_of_pairs, read_stored
from flowexp.data.base import ImageArrays
from flowexp.data.digests import Array
from flowexp.data.locations import decode_once
from flowexp.data.partners import JoinedPartners, Partners, SeededPartners, StoredPartners
from flowexp.data.quantization import as_data
from flowexp.errors import UsageError
from flowexp.paths import Source
from flowexp.progress import counted

__all__ = ["PairManifest", "PairStore", "join_stores", "read_digests"]

_IN_MEMORY_BYTES = 1 << 30


@dataclass(frozen=True)
class PairManifest:
    """How the pairs of a store were made.

    Attributes:
        teacher: ``run``, ``checkpoint``, ``sha256`` of that file, ``weights``, ``transform``, and
            ``data``, the fingerprint of its data, if they were needed; ``autoencoder``, the
            identity of its autoencoder, if the samples are latents.
        start: Where a pair begins: noise (sampled) or data (inverted), and the options.
        sampler: Description of the sampler.
        guidance: Description of the guidance and its scale; it is part of the coupling.
        labels: Description of the distribution of labels.
        source: Identity of the source; training on seeds needs the same one.
        shape: Shape of a sample.
        num_classes: Number of classes; 0 = no labels.
        images: ``uint8`` levels, or ``float32``.
        noise: ``seeds`` (drawn again when needed) or ``arrays`` (float32).
        identity: Name of the column that identifies a pair: ``seeds`` or ``index``.
        ranges: The seeds or indices, in order, as inclusive ranges.
        shard_size: Pairs per shard.
        batch_size: Pairs per call of the sampler; it affects rounding.
    """

    teacher: Mapping[str, str]
    start: str
    sampler: str
    guidance: str
    labels: str
    source: str
    shape: tuple[int, ...]
    num_classes: int
    images: str
    noise: str
    identity: str
    ranges: tuple[tuple[int, int], ...]
    shard_size: int
    batch_size: int

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def members(self) -> npt.NDArray[np.int64]:
        """The seeds or indices of all pairs, (N,), int64."""
        pieces = [np.arange(first, last + 1, dtype=np.int64) for first, last in self.ranges]
        return np.concatenate(pieces)

    def members_text(self) -> str:
        """The seeds or indices as a user writes them, e.g. ``0-99,200-299``."""
        return ",".join(f"{first}-{last}" for first, last in self.ranges)

    def shards(self) -> dict[str, npt.NDArray[np.int64]]:
        """File name -> the seeds or indices of its pairs."""
        members, size = self.members(), self.shard_size
        return {
            f"shard_{number:06d}.npz": members[first : first + size]
            for number, first in enumerate(range(0, len(members), size))
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins for JSON."""
        return {"format": PAIRS_FORMAT, "num": len(self), **asdict(self)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "PairManifest":
        """The manifest of ``to_dict``; ``ValueError`` for another format or a missing field."""
        if content.get("format") != PAIRS_FORMAT:
            raise ValueError(f"its format is {content.get('format')!r}, not {PAIRS_FORMAT!r}")
        missing = [field.name for field in fields(cls) if field.name not in content]
        if missing:
            raise ValueError(f"{', '.join(missing)} is missing")
        values = {field.name: content[field.name] for field in fields(cls)}
        values["shape"] = tuple(values["shape"])
        values["ranges"] = tuple((int(first), int(last)) for first, last in values["ranges"])
        return cls(**values)


class PairStore:
    """A finished store: its folder, its manifest, and the sha256 (hex) of every shard by name."""

    def __init__(self, path: Path, *, manifest: PairManifest, digests: Mapping[str, str]) -> None:
        self.path = path
        self.manifest = manifest
        self.digests = dict(digests)

    @classmethod
    def open(cls, path: Path | str, *, key: str = "pairs") -> "PairStore":
        """The store in a folder, complete by its manifest; contents are checked when read.

        Raises:
            UsageError: The folder is not a store, or not finished; at this config key.
        """
        folder = Path(path)
        content = read_manifest_of_pairs(folder, key=key)
        try:
            manifest = PairManifest.from_dict(content)
        except ValueError as error:
            raise UsageError(
                f"{folder} is not a pair store ({error}).",
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
        """The parts that made the pairs, as plain config nodes; raises ``UsageError`` without."""
        found: dict[str, Any] = read_stored(self.path / "config.yaml", key="pairs")
        return found

    def shards(self) -> Iterator[dict[str, Array]]:
        """The columns of every shard, in order; ``UsageError`` if one differs from the records."""
        with counted("read", total=len(self), unit=f"pairs of {self.path.name}") as task:
            for name, members in self.manifest.shards().items():
                yield self._shard(name, members)
                task.advance(len(members))

    def _shard(self, name: str, members: npt.NDArray[np.int64]) -> dict[str, Array]:
        content = (self.path / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.digests[name]:
            raise self._damaged(name, "its sha256 does not match")
        with np.load(io.BytesIO(content), allow_pickle=False) as columns:
            shard = dict(columns)
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
        return _joined(found)

    def column(self, name: str) -> Array:
        """One column of all pairs; not checked against the digests."""
        return np.concatenate([part[name] for part in self._unchecked(lambda key: key == name)])

    def arrays(self, source: Source) -> ImageArrays:
        """The pairs for training on a path with this source; shards are checked.

        Raises:
            UsageError: A shard is damaged, or seeds belong to another source.
        """
        self._require_source(source)
        shape, dtype = (len(self), *self.manifest.shape), np.dtype(self.manifest.images)
        if dtype == np.uint8 and math.prod(shape) > _IN_MEMORY_BYTES:
            images, shards = self._mapped_images(), self._unchecked(lambda key: key != "images")
        else:
            images, shards = np.empty(shape, dtype), self.shards()
        parts, filled = [], 0
        for shard in shards:
            if "images" in shard:
                column = shard.pop("images")
                images[filled : filled + len(column)] = column
                filled += len(column)
            parts.append(shard)
        joined = _joined(parts)
        partners: Partners
        if self.manifest.noise == "arrays":
            partners = StoredPartners(joined["noise"])
        else:
            partners = SeededPartners(joined["seeds"], source=source, shape=self.manifest.shape)
        return ImageArrays(
            images,
            joined.get("labels"),
            self.manifest.num_classes,
            self.fingerprint,
            f"pairs/{self.path.name}",
            partners=partners,
        )

    def _require_source(self, source: Source) -> None:
        if self.manifest.noise == "seeds" and source.identity() != self.manifest.source:
            raise UsageError(
                f"{self.path} holds seeds of draws from {self.manifest.source}, but the path's "
                f"source is {source!r}.",
                key="pairs",
                remedy="Train on the teacher's source, or make the pairs with start.noise=arrays.",
            )

    def _mapped_images(self) -> Array:
        """All images behind one memory map, joined once and cached."""
        images, _ = decode_once(
            f"pairs_{self.fingerprint}",
            shape=(len(self), *self.manifest.shape),
            chunks=lambda: (shard["images"] for shard in self.shards()),
            in_memory=False,
            origin=str(self.path),
        )
        return images

    def _unchecked(self, wanted: Callable[[str], bool]) -> Iterator[dict[str, Array]]:
        """Some columns of every shard, not checked against the digests; others are not read."""
        for name in self.manifest.shards():
            with np.load(self.path / name, allow_pickle=False) as columns:
                yield {key: columns[key] for key in columns.files if wanted(key)}


def _joined(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def read_digests(folder: Path) -> dict[str, str]:
    """The recorded sha256 of every shard; empty while a store is not finished."""
    try:
        return dict(json.loads((folder / "digests.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def join_stores(stores: Sequence[PairStore], source: Source) -> ImageArrays:
    """The pairs of at least one store as one set; a store named twice counts twice.

    Raises:
        UsageError: The stores do not match, or share pairs.
    """
    if len(stores) == 1:
        return stores[0].arrays(source)
    _require_alike(stores)
    _refuse_common_pairs(stores)
    parts = [store.arrays(source) for store in stores]
    labels = [part.labels for part in parts if part.labels is not None]
    kinds = {part.images.dtype for part in parts}
    if len(kinds) == 1:
        images = [part.images for part in parts]
    else:
        images = [as_data(torch.from_numpy(part.images)).numpy() for part in parts]
    prints = " ".join(part.fingerprint for part in parts)
    return ImageArrays(
        np.concatenate(images),
        np.concatenate(labels) if labels else None,
        parts[0].num_classes,
        hashlib.sha256(prints.encode()).hexdigest(),
        " + ".join(part.name for part in parts),
        partners=JoinedPartners([part.partners for part in parts if part.partners is not None]),
    )


def _require_alike(stores: Sequence[PairStore]) -> None:
    first = stores[0]
    for other in stores[1:]:
        for name in ("shape", "num_classes", "guidance", "teacher"):
            mine, theirs = (getattr(store.manifest, name) for store in (first, other))
            if name == "teacher":
                mine, theirs = mine["sha256"], theirs["sha256"]
            if mine != theirs:
                raise UsageError(
                    f"{first.path} and {other.path} differ in {name}: {mine} and {theirs}.",
                    key="pairs",
                    remedy="Join only pairs of one teacher and one guidance.",
                )


def _refuse_common_pairs(stores: Sequence[PairStore]) -> None:
    """Different folders must hold different pairs; the same folder may be named twice."""
    distinct = {store.path.resolve(): store for store in stores}.values()
    seen: dict[str, set[int]] = {}
    for store in distinct:
        mine = set(store.manifest.members().tolist())
        common = mine & seen.setdefault(store.manifest.start, set())
        if common:
            raise UsageError(
                f"{store.path} repeats {len(common)} pairs of another store "
                f"({store.manifest.identity} {min(common)} and others).",
                key="pairs",
                remedy="Make it with other seeds, for example seeds=100000-199999.",
            )
        seen[store.manifest.start] |= mine
