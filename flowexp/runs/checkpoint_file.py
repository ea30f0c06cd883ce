"""Checkpoint files: plain containers of tensors, never anything that runs code when read."""

import pickle
from pathlib import Path
from typing import Any

from flowexp.errors import UsageError
from flowexp.files import write_torch

__all__ = ["CHECKPOINT_FORMAT", "read_checkpoint", "write_checkpoint"]

CHECKPOINT_FORMAT = 1
_REQUIRED = ("format", "step", "images", "network", "ema")


def write_checkpoint(path: Path, content: dict[str, Any]) -> Path:
    """Write a checkpoint; its format number is added.

    Args:
        path: Where to.
        content: ``step``, ``images``, ``network``, ``ema`` and whatever else the writer restores;
            tensors in dicts and lists of plain builtins.
    """
    return write_torch(path, {"format": CHECKPOINT_FORMAT, **content})


def read_checkpoint(path: Path, *, mmap: bool = False, key: str = "run") -> dict[str, Any]:
    """Read a checkpoint onto the CPU, refusing anything but tensors and plain containers.

    Args:
        path: The file.
        mmap: Map the file instead of reading it, for readers that need a part of it.
        key: Config key to name in messages.

    Raises:
        UsageError: The file is missing, truncated, not a checkpoint, or of a newer format.
    """
    import torch

    if not path.is_file():
        raise UsageError(f"there is no checkpoint {path}.", key=key)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().split("\n", maxsplit=1)[0]
        raise UsageError(
            f"{path} cannot be read: it is truncated, damaged or no checkpoint ({reason}).",
            key=key,
            remedy="Name an older one with checkpoint=..., or remove the file.",
        ) from error
    if not isinstance(content, dict) or any(name not in content for name in _REQUIRED):
        raise UsageError(f"{path} is a torch file, but no flowexp checkpoint.", key=key)
    if content["format"] > CHECKPOINT_FORMAT:
        raise UsageError(
            f"{path} has checkpoint format {content['format']}; this version reads up to "
            f"{CHECKPOINT_FORMAT}.",
            key=key,
            remedy="Install a newer flowexp.",
        )
    return content
