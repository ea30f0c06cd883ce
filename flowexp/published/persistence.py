"""Networks stored by NVIDIA's ``persistence``: a tree of inert objects, read without code."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from flowexp.errors import UsageError
from flowexp.published.safe_pickle import SavedModule, SavedObject

__all__ = ["child", "constructor_arguments", "tensors"]

_DEEPEST = 64


def tensors(saved: SavedObject) -> dict[str, Tensor]:
    """The flat state dict of a stored network: parameters and buffers by dotted name.

    Raises:
        UsageError: The tree is not a network.
    """
    return dict(_walk(saved, "", 0))


def _walk(node: SavedObject | SavedModule, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > _DEEPEST:
        raise UsageError("the stored network is nested too deeply.", key="file")
    skipped = node.state.get("_non_persistent_buffers_set") or ()
    for kind in ("_parameters", "_buffers"):
        for name, value in _members(node, kind).items():
            if isinstance(value, Tensor) and name not in skipped:
                yield f"{prefix}{name}", value.detach()
    for name, inner in _members(node, "_modules").items():
        if isinstance(inner, SavedObject | SavedModule):
            yield from _walk(inner, f"{prefix}{name}.", depth + 1)


def _members(node: SavedObject | SavedModule, kind: str) -> Mapping[Any, Any]:
    members = node.state.get(kind) or {}
    if not isinstance(members, Mapping):
        raise UsageError(f"the stored network has no {kind}.", key="file")
    return members


def child(saved: SavedObject, name: str) -> SavedObject:
    """A stored sub-module.

    Raises:
        UsageError: There is no sub-module of that name.
    """
    found = _members(saved, "_modules").get(name)
    if not isinstance(found, SavedObject):
        raise UsageError(f"the stored {saved.class_name} has no network {name!r}.", key="file")
    return found


def constructor_arguments(saved: SavedObject, names: tuple[str, ...]) -> dict[str, Any]:
    """The constructor arguments of an object, by name.

    Args:
        saved: The object.
        names: The constructor's parameters in their order.

    Raises:
        UsageError: They are not stored, or there are more than parameters.
    """
    positional = saved.state.get("_init_args", ())
    keywords = saved.state.get("_init_kwargs")
    if not isinstance(keywords, Mapping) or not isinstance(positional, tuple | list):
        raise UsageError(
            f"the stored {saved.class_name} lacks its constructor arguments.", key="file"
        )
    if len(positional) > len(names):
        raise UsageError(
            f"the stored {saved.class_name} has {len(positional)} positional arguments; "
            f"{len(names)} are known.",
            key="file",
        )
    return dict(zip(names, positional, strict=False)) | {str(k): v for k, v in keywords.items()}
