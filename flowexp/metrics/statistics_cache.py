"""Features of real data and their statistics on disk, one npz file per set and protocol."""

import hashlib
import json
import logging
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.files import write_npz
from flowexp.metrics.base import Extractor, SampleSet

_LOG = logging.getLogger(__name__)
_FORMAT = 1
_Stored = TypeVar("_Stored")


def cached(
    compute: Callable[[], _Stored],
    *,
    pack: Callable[[_Stored], dict[str, Tensor]],
    unpack: Callable[[dict[str, Tensor]], _Stored],
    samples: SampleSet,
    extractor: Extractor,
    cache_dir: Path | None,
    content: str | None = None,
) -> _Stored:
    """Statistics of a set of real samples, computed only when no valid file holds them.

    A damaged file is replaced with a warning; a file of another protocol was put there by hand and
    is refused.

    Args:
        compute: Computes them.
        pack: Their tensors, as stored.
        unpack: The inverse of ``pack``.
        samples: The samples, for their name, fingerprint and count.
        extractor: The extractor, for its protocol.
        cache_dir: Folder of the files; None switches the cache off.
        content: What is stored, where it is not the moments.

    Raises:
        UsageError: If the file at this place was made by another protocol.
    """
    if cache_dir is None:
        return compute()
    described: dict[str, object] = {
        "format": _FORMAT,
        "extractor": extractor.name,
        "weights_sha256": extractor.weights_sha256,
        "resize": extractor.resize,
        "quantization": extractor.quantization,
        "fingerprint": samples.fingerprint,
        "count": len(samples.images),
        **({} if content is None else {"content": content}),
    }
    file = Path(cache_dir) / _file_name(samples.name, described)
    stored = _read(file, described, unpack)
    if stored is None:
        stored = compute()
        arrays = {name: value.numpy() for name, value in pack(stored).items()}
        write_npz(file, {"protocol": np.array(json.dumps(described)), **arrays})
    return stored


def _file_name(name: str, described: dict[str, object]) -> str:
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}-{digest[:16]}.npz"


def _read(
    file: Path, described: dict[str, object], parse: Callable[[dict[str, Tensor]], _Stored]
) -> _Stored | None:
    """What a file holds, None when there is none or it is damaged."""
    if not file.is_file():
        return None
    try:
        # numpy leaves a file that is not a zip open when it is given the path
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            found = json.loads(str(stored["protocol"]))
            state = {
                key: torch.from_numpy(stored[key]) for key in stored.files if key != "protocol"
            }
            content = parse(state)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _LOG.warning("%s is damaged (%s) and is computed again", file, error)
        return None
    if found != described:
        parts = sorted(k for k in {*found, *described} if found.get(k) != described.get(k))
        raise UsageError(
            f"the statistics {file} were made by another protocol (differs in {', '.join(parts)}).",
            remedy="Delete that file; it will be computed again.",
        )
    return content
