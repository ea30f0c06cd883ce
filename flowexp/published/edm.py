"""Checkpoints of EDM's code base: snapshots of EDM and RF++ (.pkl), states of PFGM++ (.pt).

Source: Karras et al., EDM, 2022, arXiv 2206.00364, the authors' ``torch_utils.persistence``
(format) and ``training.networks`` (classes); Xu et al., PFGM++, 2023, arXiv 2302.04265 (D).
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from flowexp.errors import UsageError
from flowexp.files import file_sha256
from flowexp.published.edm_parts import (
    network_part,
    only_first_channels,
    parameters_of,
    preconditioner,
    refuse_unknown,
    shape_of,
)
from flowexp.published.model import Part, Published, Reader
from flowexp.published.safe_pickle import SavedModule, SavedObject, load_pickle
from flowexp.published.torch_zip import load_torch_zip

__all__ = ["EDMSnapshot", "TrainingState", "precond_state"]

# The authors' sampler goes from 80 to 0.002, within the range of the network.
_SIGMA_MIN, _SIGMA_MAX = 0.002, 80.0
_NETWORK = "model."
_DEEPEST = 64


class EDMSnapshot(Reader):
    """``network-snapshot-KIMG.pkl`` of EDM, and the published networks: averaged weights only."""

    def read(self, path: Path) -> Published:
        ema = _precond(load_pickle(path), "ema", path)
        named = re.search(r"(?:network-)?snapshot-(\d+)", path.name)
        kimg = float(named[1]) if named else None
        note = "the file holds averaged weights only; `raw` weights are the same"
        return _published(path, "EDM snapshot", ema, averaged=ema, kimg=kimg, notes=(note,))


class TrainingState(Reader):
    """``training-state-KIMG.pt`` of PFGM++ and EDM: weights, and averaged ones if stored."""

    def read(self, path: Path) -> Published:
        content = load_torch_zip(path)
        net = _precond(content, "net", path)
        ema = _precond(content, "ema", path) if "ema" in content else None
        images = content.get("step")
        named = re.search(r"training-state-(\d+)", path.name)
        kimg = float(images) / 1000.0 if isinstance(images, int | float) else None
        if kimg is None and named:
            kimg = float(named[1])
        notes = () if ema is not None else ("the file holds no averaged weights",)
        return _published(path, "EDM training state", net, averaged=ema, kimg=kimg, notes=notes)


def precond_state(path: Path) -> dict[str, Tensor]:
    """Every tensor of the averaged network in a snapshot, preconditioner included, by its name.

    Raises:
        UsageError: The file is damaged, unsafe, or not a snapshot.
    """
    return _tensors(_precond(load_pickle(path), "ema", path))


def _precond(content: object, name: str, path: Path) -> SavedObject:
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} holds no checkpoint of EDM's code.", key="file")
    found = content.get(name)
    if not isinstance(found, SavedObject):
        raise UsageError(f"{path} holds no network {name!r}.", key="file")
    return found


def _published(
    path: Path,
    format: str,
    weights: SavedObject,
    *,
    averaged: SavedObject | None,
    kimg: float | None,
    notes: tuple[str, ...],
) -> Published:
    kind = preconditioner(weights.class_name)
    given = _constructor_arguments(weights, kind.names)
    inner = _members(weights, "_modules").get("model")
    if not isinstance(inner, SavedObject):
        raise UsageError(f"the stored {weights.class_name} has no network 'model'.", key="file")
    names = tuple(parameters_of(inner.class_name))
    network = network_part(inner.class_name, _constructor_arguments(inner, names))
    known = (*kind.names, *network.arguments)
    refuse_unknown(weights.class_name, [name for name in given if name not in known], known)
    shape = shape_of(network)
    network = Part(network.option, {**network.arguments, "out_channels": shape.channels})
    D = _degrees_of_freedom(weights, given)
    low = max(_SIGMA_MIN, float(weights.state.get("sigma_min", 0.0)))
    high = min(_SIGMA_MAX, float(weights.state.get("sigma_max", math.inf)))
    schedule = {"schedule.t_min": low, "schedule.t_max": high}
    levels = {"sigma_min": low, "sigma_max": high} if kind.takes_range else {}
    path_part = Part("edm", schedule) if math.isinf(D) else Part("pfgmpp", {"D": D, **schedule})
    return Published(
        format=format,
        path=path,
        sha256=file_sha256(path),
        parts={
            "network": network,
            "parameterization": Part(kind.option, kind.arguments(given) | levels),
            "path": path_part,
            "sampler": Part("edm_heun", {"steps": 18 if shape.resolution <= 32 else 40}),
        },
        shape=shape,
        weights=_network_state(weights, shape.channels),
        averaged=None if averaged is None else _network_state(averaged, shape.channels),
        D=D,
        kimg=kimg,
        notes=notes,
    )


def _degrees_of_freedom(precond: SavedObject, given: Mapping[str, Any]) -> float:
    stored = {**precond.state, **given}
    if not stored.get("pfgmpp", False):
        return math.inf
    try:
        return float(stored["D"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError("a PFGM++ network without a number D.", key="file") from error


def _network_state(precond: SavedObject, channels: int) -> dict[str, Tensor]:
    state = _tensors(precond)
    bare = {k.removeprefix(_NETWORK): v for k, v in state.items() if k.startswith(_NETWORK)}
    return only_first_channels(bare, channels)


def _tensors(saved: SavedObject) -> dict[str, Tensor]:
    """The flat state dict of a stored network: parameters and buffers by dotted name."""
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


def _constructor_arguments(saved: SavedObject, names: tuple[str, ...]) -> dict[str, Any]:
    """The constructor arguments of an object, whose parameters have these names in order."""
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
