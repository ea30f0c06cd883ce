"""Feature statistics of real data on disk, one npz file per data set and extractor protocol."""

import hashlib
import json
import logging
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from flowexp.errors import UsageError
from flowexp.metrics.base import Extractor, SampleSet
from flowexp.metrics.moments import Moments

_LOG = logging.getLogger(__name__)
_FORMAT = 1


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
    described = {
        "format": _FORMAT,
        "extractor": extractor.name,
        "weights_sha256": extractor.weights_sha256,
        "resize": extractor.resize,
        "quantization": extractor.quantization,
        "fingerprint": samples.fingerprint,
        "count": len(samples.images),
    }
    file = Path(cache_dir) / _file_name(samples.name, described)
    if file.is_file():
        moments = _read(file, described)
        if moments is not None:
            return moments
    moments = compute()
    _write(file, moments, described)
    return moments


def _file_name(name: str, described: dict[str, object]) -> str:
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}-{digest[:16]}.npz"


def _read(file: Path, described: dict[str, object]) -> Moments | None:
    import numpy as np

    try:
        # numpy leaves a file that is no zip open when it is given the path
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            found = json.loads(str(stored["protocol"]))
            state = {
                key: torch.from_numpy(stored[key]) for key in stored.files if key != "protocol"
            }
            moments = Moments.from_state(state)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _LOG.warning("%s is damaged (%s) and is computed anew", file, error)
        return None
    if found != described:
        parts = sorted(k for k in {*found, *described} if found.get(k) != described.get(k))
        raise UsageError(
            f"the statistics {file} were made by another protocol (differs in {', '.join(parts)}).",
            remedy="Delete that file; it will be computed anew.",
        )
    return moments


def _write(file: Path, moments: Moments, described: dict[str, object]) -> None:
    import numpy as np

    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.stem}-{uuid4().hex}.npz")
    arrays: dict[str, Any] = {key: value.numpy() for key, value in moments.state().items()}
    try:
        np.savez(beside, protocol=np.array(json.dumps(described)), **arrays)
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)
