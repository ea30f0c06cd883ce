"""Reading pickles of plain values and numpy arrays without running code."""

import io
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["load_plain"]


def _reconstruct(*_: object) -> npt.NDArray[Any]:
    """The empty array that the pickle's next instruction fills."""
    return np.ndarray((0,), dtype=np.uint8)


# Old files contain the module names from before numpy 2.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - the protocol's signature
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise ValueError(f"it requires {module}.{name}, which is not allowed") from None


def load_plain(content: bytes) -> Any:  # noqa: ANN401 - whatever plain value the file holds
    """The value in a pickle made of builtin containers, strings, numbers and numpy arrays.

    Strings of Python 2 are read as latin-1, which numpy's array bytes survive.

    Raises:
        ValueError: The pickle requires anything else, or is damaged.
    """
    try:
        return _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except ValueError:
        raise
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, AttributeError, OverflowError,
            MemoryError) as error:  # fmt: skip
        raise ValueError(f"it is damaged ({error})") from error
