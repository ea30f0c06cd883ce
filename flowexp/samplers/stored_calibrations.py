"""Finding the stored calibration that belongs to a model."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from flowexp.config.override_text import command
from flowexp.models import Model

__all__ = ["StoredCalibration", "find_calibration", "identity_of"]

Misfit = Callable[["StoredCalibration"], str | None]
"""Why a stored calibration of the right model does not fit, or None if it does."""


@dataclass(frozen=True)
class StoredCalibration:
    """A file of numbers and its manifest.

    Attributes:
        file: The numbers, ``<name>.npz``.
        identity: Weights and path they were measured on, see :func:`identity_of`.
        settings: Everything else they depend on.
    """

    file: FilePath
    identity: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The file's name without suffix."""
        return self.file.stem


def identity_of(model: Model) -> dict[str, str | None]:
    """Weights and path of a model, by which its calibrations are known."""
    origin = model.origin
    return {
        "weights_sha256": None if origin is None else origin.weights_sha256,
        "weights": None if origin is None else origin.weights,
        "path": model.path.identity(),
    }


def find_calibration(
    model: Model,
    *,
    method: str,
    name: str | None = None,
    key: str = "sampler.calibration",
    misfit: Misfit = lambda stored: None,
    elsewhere: FilePath | None = None,
) -> StoredCalibration:
    """The stored calibration that belongs to a model and fits.

    Args:
        model: The model that is sampled.
        method: Folder below the run's calibrations.
        name: A file's name without suffix, or its beginning; None = the only one that fits.
        key: Config key that chooses one by name, for messages.
        misfit: Further reasons against one.
        elsewhere: Calibrations of another run in place of the model's own; it must have the same
            path, but may have other weights.

    Raises:
        ValueError: The model has no run, there is none, the named one was made of other weights or
            another path or does not fit, or several fit and none is named.
    """
    if elsewhere is None and model.origin is None:
        raise ValueError(
            f"{method} needs numbers measured on trained weights, but this model does not come "
            f"from a run; evaluate a run: flowexp eval run=DIR"
        )
    own = None if model.origin is None else model.origin.calibrations
    folder = (elsewhere or own or FilePath()) / method
    there = _stored_in(folder)
    if not there:
        raise ValueError(
            f"nothing was calibrated for {method} in {folder}; do it once with "
            f"{command('calibrate', run=folder.parents[1])} for={method}"
        )
    # A name selects a file in full, or up to a ``_`` or ``-``.
    beginnings = (f"{name}_", f"{name}-")
    candidates = [s for s in there if name in (None, s.name) or s.name.startswith(beginnings)]
    if not candidates:
        known = [stored.name for stored in there]
        raise ValueError(f"there is no calibration {name!r} in {folder}; it has {known}")
    identity = identity_of(model)
    if elsewhere:
        identity = {"path": identity["path"]}
    judged = [(stored, _foreign(identity, stored) or misfit(stored)) for stored in candidates]
    fitting = [stored for stored, reason in judged if reason is None]
    if not fitting:
        listed = "; ".join(f"{stored.name} {reason}" for stored, reason in judged)
        raise ValueError(f"no calibration in {folder} fits: {listed}")
    if len(fitting) > 1:
        names = ", ".join(stored.name for stored in fitting)
        raise ValueError(
            f"several calibrations in {folder} fit ({names}); choose one with {key}=NAME"
        )
    return fitting[0]


def _stored_in(folder: FilePath) -> list[StoredCalibration]:
    """Complete calibrations: those whose manifest, which is written last, is there."""
    found = []
    for manifest in sorted(folder.glob("[!.]*.json")):
        content = json.loads(manifest.read_text(encoding="utf-8"))
        file = manifest.with_suffix(".npz")
        found.append(StoredCalibration(file, content["identity"], content["settings"]))
    return found


def _foreign(identity: Mapping[str, str | None], stored: StoredCalibration) -> str | None:
    """The differences of the model from the one that was measured."""
    theirs = {key: stored.identity.get(key) for key in identity}
    different = [f"{k} {theirs[k]}, not {v}" for k, v in identity.items() if theirs[k] != v]
    return f"was made on {', '.join(different)}" if different else None
