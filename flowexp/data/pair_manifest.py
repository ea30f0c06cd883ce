"""How the pairs of a store were made, and which shard holds which pairs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FORMAT", "PairManifest"]

FORMAT = "flowexp-pairs-1"
"""Version of the layout."""


@dataclass(frozen=True)
class PairManifest:
    """How the pairs of a store were made.

    Attributes:
        teacher: ``run``, ``checkpoint``, ``sha256`` of that file, ``weights``, ``transform``.
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
            f"shard_{number:06d}.npz": members[number * size : (number + 1) * size]
            for number in range(-(-len(members) // size))
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins for JSON."""
        return {"format": FORMAT, "num": len(self), **asdict(self)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "PairManifest":
        """The manifest that :meth:`to_dict` wrote.

        Raises:
            ValueError: It is of another format, or a field is missing.
        """
        if content.get("format") != FORMAT:
            raise ValueError(f"its format is {content.get('format')!r}, not {FORMAT!r}")
        missing = [field.name for field in fields(cls) if field.name not in content]
        if missing:
            raise ValueError(f"{', '.join(missing)} is missing")
        values = {field.name: content[field.name] for field in fields(cls)}
        values["shape"] = tuple(values["shape"])
        values["ranges"] = tuple((int(first), int(last)) for first, last in values["ranges"])
        return cls(**values)
