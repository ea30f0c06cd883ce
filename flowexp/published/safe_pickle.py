"""An unpickler that can build only tensors, numbers and containers.

A pickle is a program: it may name any importable object and call it. Here every name must be in a
table of a dozen harmless ones; any other is refused before anything is called. The source code that
NVIDIA's ``persistence`` stores with every object (``module_src``) is ignored.
"""

import io
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
import torch

from flowexp.errors import UsageError

__all__ = ["ALLOWED", "SafeUnpickler", "SavedModule", "SavedObject", "load_pickle", "unreadable"]

_PLAIN_KINDS = "biufc"


class SavedObject:
    """An object stored by ``persistence``: its class name and ``__dict__``, inert."""

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.class_name = class_name
        self.state = state


class SavedModule:
    """The attributes of a torch container (``ModuleDict`` and the like), inert."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("the state of a module is not a dict")
        self.state = state


class _PlainDict(dict[Any, Any]):
    """A dict in place of a stored subclass; its attributes are ignored."""

    def __setstate__(self, state: object) -> None:
        """Nothing: a plain dict has no attributes."""


class _Function:
    """A function that a pickle may call but not alter."""

    __slots__ = ("_function",)

    def __init__(self, function: Any) -> None:  # noqa: ANN401 - any callable
        self._function = function

    def __call__(self, *arguments: Any) -> Any:  # noqa: ANN401 - as the pickle says
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it sets attributes of a function")


def _persistent_object(meta: object) -> SavedObject:
    fields = dict(meta) if isinstance(meta, Mapping) else {}
    name, state = fields.get("class_name"), fields.get("state")
    if fields.get("type") != "class" or not isinstance(name, str) or not isinstance(state, dict):
        raise pickle.UnpicklingError("a persistent object has an unknown form")
    return SavedObject(name, state)


def _storage(content: bytes) -> Any:  # noqa: ANN401 - a typed storage
    """``torch.storage._load_from_bytes``, without its ability to run code."""
    with warnings.catch_warnings():
        # For damaged bytes torch first warns about an unusual pickle protocol.
        warnings.simplefilter("ignore")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _dtype(name: object, *_: object) -> np.dtype[Any]:
    dtype = np.dtype(name) if isinstance(name, str) else None
    if dtype is None or dtype.kind not in _PLAIN_KINDS:
        raise pickle.UnpicklingError(f"it holds numpy data of type {name!r}")
    return dtype


def _scalar(dtype: object, content: object = b"") -> bool | int | float | complex:
    if not isinstance(dtype, np.dtype) or not isinstance(content, bytes):
        raise pickle.UnpicklingError("a numpy number has an unknown form")
    value: bool | int | float | complex = np.frombuffer(content, dtype=dtype, count=1)[0].item()
    return value


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Bytes in protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes have an unknown form")
    return text.encode("latin1")


# Old files contain the module names from before numpy 2 and Python 3.
ALLOWED: Mapping[str, Any] = MappingProxyType(
    {
        "collections.OrderedDict": OrderedDict,
        "dnnlib.util.EasyDict": _PlainDict,
        "builtins.set": _Function(set),
        "__builtin__.set": _Function(set),
        "_codecs.encode": _Function(_encode),
        "numpy.dtype": _Function(_dtype),
        "numpy.core.multiarray.scalar": _Function(_scalar),
        "numpy._core.multiarray.scalar": _Function(_scalar),
        "torch.Size": _Function(tuple),
        "torch._utils._rebuild_tensor_v2": _Function(torch._utils._rebuild_tensor_v2),
        "torch._utils._rebuild_parameter": _Function(torch._utils._rebuild_parameter),
        "torch.storage._load_from_bytes": _Function(_storage),
        "torch.nn.modules.container.ModuleDict": SavedModule,
        "torch.nn.modules.container.ModuleList": SavedModule,
        "torch.nn.modules.container.Sequential": SavedModule,
        "torch_utils.persistence._reconstruct_persistent_obj": _Function(_persistent_object),
    }
)


class NotAllowed(pickle.UnpicklingError):
    """A pickle requires a name outside the list."""


class SafeUnpickler(pickle.Unpickler):
    """Reads a pickle with the names in ``ALLOWED`` and ``further``, and no others."""

    def __init__(self, file: BinaryIO, *, further: Mapping[str, Any] | None = None) -> None:
        super().__init__(file, encoding="latin1")
        self._allowed = {**ALLOWED, **(further or {})}

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - the protocol's signature
        full = f"{module}.{name}"
        if full not in self._allowed:
            raise NotAllowed(full)
        return self._allowed[full]

    def load(self) -> Any:  # noqa: ANN401 - whatever the pickle holds
        """The value; every failure is an UnpicklingError."""
        try:
            return super().load()
        except pickle.UnpicklingError:
            raise
        except Exception as error:
            # Any failure while executing the instructions means that the file is damaged.
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise pickle.UnpicklingError(reason) from error


def load_pickle(path: Path) -> Any:  # noqa: ANN401 - whatever the pickle holds
    """The content of a pickle file; one that is damaged or requires another name is refused."""
    with path.open("rb") as file:
        try:
            return SafeUnpickler(file).load()
        except pickle.UnpicklingError as error:
            raise unreadable(path, error) from error


def unreadable(path: Path, error: pickle.UnpicklingError) -> UsageError:
    """The error for a file that could not be unpickled, by :class:`SafeUnpickler` or by torch."""
    by_torch = re.search(r"GLOBAL ([\w.]+)", str(error))
    if by_torch or isinstance(error, NotAllowed):
        return UsageError(
            f"{path} was not read: it requires {by_torch[1] if by_torch else error}, which is not "
            f"part of a published checkpoint and could run code.",
            key="file",
            remedy="Download the file from its authors, and compare its sha256.",
        )
    return UsageError(
        f"{path} cannot be read: it is truncated, damaged or not a pickle ({error}).",
        key="file",
        remedy="Download it again.",
    )
