"""Files of ``torch.save`` that hold more than tensors, read with the allow-list unpickler.

``torch.load`` reads such a file only with ``weights_only=False``, which runs whatever the pickle
says. Its container is an ordinary ZIP: ``NAME/data.pkl`` and one member ``NAME/data/KEY`` per
storage, which the pickle names by persistent ids.
"""

import io
import pickle
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from flowexp.errors import UsageError
from flowexp.published.safe_pickle import SafeUnpickler, unreadable

__all__ = ["load_torch_zip", "mentions"]

_DAMAGED = (zipfile.BadZipFile, zlib.error, LookupError, OSError, EOFError, RuntimeError)


class _StorageType:
    """A storage class named in a torch pickle; only its element type matters."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it sets attributes of a storage type")


_STORAGES: Mapping[str, _StorageType] = {
    "torch.DoubleStorage": _StorageType(torch.float64),
    "torch.FloatStorage": _StorageType(torch.float32),
    "torch.HalfStorage": _StorageType(torch.float16),
    "torch.BFloat16Storage": _StorageType(torch.bfloat16),
    "torch.LongStorage": _StorageType(torch.int64),
    "torch.IntStorage": _StorageType(torch.int32),
    "torch.ShortStorage": _StorageType(torch.int16),
    "torch.CharStorage": _StorageType(torch.int8),
    "torch.ByteStorage": _StorageType(torch.uint8),
    "torch.BoolStorage": _StorageType(torch.bool),
}


class _ZipUnpickler(SafeUnpickler):
    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        pickled = archive.read(f"{folder}/data.pkl")
        super().__init__(io.BytesIO(pickled), further=_STORAGES)
        self._archive = archive
        self._folder = folder
        self._read: dict[str, torch.UntypedStorage] = {}

    def persistent_load(self, pid: Any) -> torch.storage.TypedStorage:  # noqa: ANN401
        """The storage with this id, on the CPU."""
        form = isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"
        if not form or not isinstance(pid[1], _StorageType) or not isinstance(pid[2], str):
            raise pickle.UnpicklingError("a storage has an unknown form")
        kind, key, count = pid[1], pid[2], pid[4]
        if key not in self._read:
            content = bytearray(self._archive.read(f"{self._folder}/data/{key}") or b"\0")
            self._read[key] = torch.frombuffer(content, dtype=torch.uint8).untyped_storage()
        untyped = self._read[key]
        if untyped.nbytes() < int(count) * kind.dtype.itemsize:
            raise pickle.UnpicklingError(f"storage {key} is too short")
        # Typed storages are what torch's own rebuilding functions take.
        build: Callable[..., torch.storage.TypedStorage] = torch.storage.TypedStorage
        return build(wrap_storage=untyped, dtype=kind.dtype, _internal=True)


def mentions(path: Path, name: str) -> bool:
    """Whether the pickle in a ``torch.save`` file contains a name; nothing is unpickled."""
    try:
        with zipfile.ZipFile(path) as archive:
            return name.encode() in archive.read(f"{_folder(archive)}/data.pkl")
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def load_torch_zip(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """The content of a ``torch.save`` file (ZIP container), read without running code."""
    try:
        with zipfile.ZipFile(path) as archive:
            folder = _folder(archive)
            name = f"{folder}/byteorder"
            order = (
                archive.read(name).decode("ascii", "replace") if name in archive.namelist() else ""
            )
            if order and order != sys.byteorder:
                raise LookupError(f"written on a {order}-endian computer")
            return _ZipUnpickler(archive, folder).load()
    except pickle.UnpicklingError as error:
        raise unreadable(path, error) from error
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"{path} cannot be read: it is truncated, damaged or not a torch file ({error}).",
        key="file",
        remedy="Download it again.",
    )


def _folder(archive: zipfile.ZipFile) -> str:
    found = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(found) != 1:
        raise LookupError("no data.pkl in it")
    return found[0].removesuffix("/data.pkl")
