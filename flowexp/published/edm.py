"""Checkpoints of EDM's code base: snapshots of EDM and RF++ (.pkl), states of PFGM++ (.pt).

Source: Karras et al., EDM, 2022, arXiv 2206.00364, the authors' ``torch_utils.persistence``
(format) and ``training.networks`` (classes); Xu et al., PFGM++, 2023, arXiv 2302.04265 (D).
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from flowexp.errors import UsageError
from flowexp.files import file_sha256
from flowexp.published.edm_networks import (
    constructor_names,
    network_part,
    only_first_channels,
    shape_of,
)
from flowexp.published.edm_preconditioners import preconditioner
from flowexp.published.model import Part, Published, Reader
from flowexp.published.persistence import child, constructor_arguments, tensors
from flowexp.published.safe_pickle import SavedObject, load_pickle
from flowexp.published.torch_zip import load_torch_zip

__all__ = ["EDMSnapshot", "TrainingState", "precond_state"]

# The authors' sampler goes from 80 to 0.002, within the range of the network.
_SIGMA_MIN, _SIGMA_MAX = 0.002, 80.0
_NETWORK = "model."


class EDMSnapshot(Reader):
    """``network-snapshot-KIMG.pkl`` of EDM, and the published networks: averaged weights only."""

    def read(self, path: Path) -> Published:
        content = _mapping(load_pickle(path), path)
        ema = _precond(content, "ema", path)
        named = re.search(r"(?:network-)?snapshot-(\d+)", path.name)
        kimg = float(named[1]) if named else None
        note = "the file holds averaged weights only; `raw` weights are the same"
        return _published(path, "EDM snapshot", ema, averaged=ema, kimg=kimg, notes=(note,))


class TrainingState(Reader):
    """``training-state-KIMG.pt`` of PFGM++ and EDM: weights, and averaged ones if stored."""

    def read(self, path: Path) -> Published:
        content = _mapping(load_torch_zip(path), path)
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
    return tensors(_precond(_mapping(load_pickle(path), path), "ema", path))


def _mapping(content: object, path: Path) -> Mapping[Any, Any]:
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} holds no checkpoint of EDM's code.", key="file")
    return content


def _precond(content: Mapping[Any, Any], name: str, path: Path) -> SavedObject:
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
    given = constructor_arguments(weights, kind.names)
    inner = child(weights, "model")
    network = network_part(
        inner.class_name, constructor_arguments(inner, constructor_names(inner.class_name))
    )
    _refuse_unknown(weights.class_name, given, (*kind.names, *network.arguments))
    shape = shape_of(network)
    network = Part(network.option, {**network.arguments, "out_channels": shape.channels})
    D = _degrees_of_freedom(weights, given)
    low, high = _range(weights)
    levels = {"sigma_min": low, "sigma_max": high} if kind.takes_range else {}
    return Published(
        format=format,
        path=path,
        sha256=file_sha256(path),
        parts={
            "network": network,
            "parameterization": Part(kind.option, kind.arguments(given) | levels),
            "path": _path(D, low, high),
            "sampler": Part("edm_heun", {"steps": 18 if shape.resolution <= 32 else 40}),
        },
        shape=shape,
        weights=_network_state(weights, shape.channels),
        averaged=None if averaged is None else _network_state(averaged, shape.channels),
        D=D,
        kimg=kimg,
        notes=notes,
    )


def _refuse_unknown(class_name: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UsageError(
            f"{class_name} has an unknown constructor argument {unknown[0]!r}.",
            key="file",
            remedy=f"Known arguments: {', '.join(known)}.",
        )


def _degrees_of_freedom(precond: SavedObject, given: Mapping[str, Any]) -> float:
    stored: dict[str, Any] = {k: precond.state[k] for k in ("D", "pfgmpp") if k in precond.state}
    stored.update(given)
    if not stored.get("pfgmpp", False):
        return math.inf
    try:
        return float(stored["D"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError("a PFGM++ network without a number D.", key="file") from error


def _range(precond: SavedObject) -> tuple[float, float]:
    low = float(precond.state.get("sigma_min", 0.0))
    high = float(precond.state.get("sigma_max", math.inf))
    return max(_SIGMA_MIN, low), min(_SIGMA_MAX, high)


def _path(D: float, low: float, high: float) -> Part:
    schedule = {"schedule.t_min": low, "schedule.t_max": high}
    return Part("edm", schedule) if math.isinf(D) else Part("pfgmpp", {"D": D, **schedule})


def _network_state(precond: SavedObject, channels: int) -> dict[str, Tensor]:
    state = tensors(precond)
    bare = {k.removeprefix(_NETWORK): v for k, v in state.items() if k.startswith(_NETWORK)}
    return only_first_channels(bare, channels)
