"""Features of real data and their statistics on disk, one npz file per set and protocol."""

import hashlib
import json
import logging
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.metrics.base import Extractor, SampleSet
from flowexp.metrics.moments import Moments

_LOG = logging.getLogger(__name__)
_FORMAT = 1
_Stored = TypeVar("_Stored")


def cached_moments(
    compute: Callable[[], Moments],
    *,
    samples: SampleSet,
    extractor: Extractor,
    cache_dir: Path | None,
) -> Moments:
    """The moments of a set of real samples, computed only when no valid file holds them.

    A damaged file is replaced with a warning; a file of another protocol is refused, since somebody
    put it there.

    Args:
        compute: Computes them.
        samples: The samples, for their name, fingerprint and count.
        extractor: The extractor, for its protocol.
        cache_dir: Folder of the files; None switches the cache off.

    Raises:
        UsageError: If the file at this place was made by another protocol.
    """
    if cache_dir is None:
        return compute()
    described = _described(samples, extractor)
    file = Path(cache_dir) / _file_name(samples.name, described)
    stored = _read(file, described, Moments.from_state)
    if stored is None:
        stored = compute()
        _write(file, stored.state(), described)
    return stored


def cached_features(
    compute: Callable[[], Tensor],
    *,
    samples: SampleSet,
    extractor: Extractor,
    cache_dir: Path | None,
) -> Tensor:
    """The features of a set of real samples, (N, d); as :func:`cached_moments` otherwise.

    Args:
        compute: Computes them.
        samples: The samples, for their name, fingerprint and count.
        extractor: The extractor, for its protocol.
        cache_dir: Folder of the files; None switches the cache off.

    Raises:
        UsageError: If the file at this place was made by another protocol.
    """
    if cache_dir is None:
        return compute()
    described = {**_described(samples, extractor), "content": "features"}
    file = Path(cache_dir) / _file_name(samples.name, described)
    stored = _read(file, described, lambda state: state["features"])
    if stored is None:
        stored = compute()
        _write(file, {"features": stored}, described)
    return stored


def _described(samples: SampleSet, extractor: Extractor) -> dict[str, object]:
    return {
        "format": _FORMAT,
        "extractor": extractor.name,
        "weights_sha256": extractor.weights_sha256,
        "resize": extractor.resize,
        "quantization": extractor.quantization,
        "fingerprint": samples.fingerprint,
        "count": len(samples.images),
    }


def _file_name(name: str, described: dict[str, object]) -> str:
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}-{digest[:16]}.npz"


def _read(
    file: Path, described: dict[str, object], parse: Callable[[dict[str, Tensor]], _Stored]
) -> _Stored | None:
    """What a file holds, None when there is none or it is damaged."""
    import numpy as np

    if not file.is_file():
        return None
    try:
        # numpy leaves a file that is no zip open when it is given the path
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            found = json.loads(str(stored["protocol"]))
            state = {
                key: torch.from_numpy(stored[key]) for key in stored.files if key != "protocol"
            }
            content = parse(state)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _LOG.warning("%s is damaged (%s) and is computed anew", file, error)
        return None
    if found != described:
        parts = sorted(k for k in {*found, *described} if found.get(k) != described.get(k))
        raise UsageError(
            f"the statistics {file} were made by another protocol (differs in {', '.join(parts)}).",
            remedy="Delete that file; it will be computed anew.",
        )
    return content


def _write(file: Path, state: dict[str, Tensor], described: dict[str, object]) -> None:
    import numpy as np

    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.stem}-{uuid4().hex}.npz")
    arrays: dict[str, Any] = {key: value.numpy() for key, value in state.items()}
    try:
        np.savez(beside, protocol=np.array(json.dumps(described)), **arrays)
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)
