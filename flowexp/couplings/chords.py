"""The coupling of data, source and time along chords of a trained model's trajectories."""

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path as FilePath

import numpy as np
import torch
from torch import Tensor

from flowexp.couplings.base import Coupling, Pairs
from flowexp.errors import UsageError
from flowexp.parameterizations import Conditions
from flowexp.requirements import Parts, Unmet, all_of

__all__ = ["CHORDS", "Chords"]

CHORDS = "chords"
"""Folder of chords below a run's calibrations."""

_MAKE = "flowexp calibrate run=DIR for=chords sampler=boss sampler.steps=K"


class Chords(Coupling):
    """Pairs (x, e) that pass through stored states with stored chord velocities, at stored times.

    A row is a trajectory and an interval, both uniform. Only the size and shape of the batch are
    used. Velocity regression on these pairs makes a model's velocity at the K times of a grid the
    mean velocity over the interval that follows. All chords are held in memory.

    Args:
        run: Directory of the teacher's run.
        name: Name of the stored chords; None = the only ones of that run.

    Raises:
        UsageError: There are none, none of this name, or several and none is named.

    Source: Nguyen et al., BOSS, 2023, arXiv 2312.16414, section 3.3.
    """

    gives_times = True
    keeps_rows = False

    def __init__(self, *, run: str | None, name: str | None = None) -> None:
        if run is None:
            raise UsageError(
                "Chords are those of a trained model, but no run is given.",
                key="init",
                remedy="Name the directory of the teacher: init=DIR, or coupling.run=DIR.",
            )
        self.file = _stored(FilePath(run) / "calibrations" / CHORDS, name)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Images as they were stored, and the path that the chords were made on."""
        yield from all_of(super().needs(parts), self._path_of_the_chords(parts))

    def _path_of_the_chords(self, parts: Parts) -> Iterator[Unmet]:
        manifest = json.loads(self.file.with_suffix(".json").read_text(encoding="utf-8"))
        theirs, path = manifest["identity"]["path"], parts.path.identity()
        if theirs != path:
            problem = f"the chords in {self.file} are of {theirs}, but the path is {path}."
            yield Unmet(".", problem, "Take the path of the run that made them.")

    @cached_property
    def _arrays(self) -> dict[str, Tensor]:
        with np.load(self.file) as stored:
            return {key: torch.from_numpy(stored[key]) for key in stored.files}

    def pair(
        self, x: Tensor, e: Tensor, conditions: Conditions, *, rng: torch.Generator, **_: object
    ) -> Pairs:
        """As many stored chords as ``x`` has rows, drawn by ``rng``.

        Raises:
            UsageError: The chords have another shape than the data, or lack labels.
        """
        stored = self._arrays
        trajectories, intervals = stored["x"].shape[:2]
        theirs, own = tuple(stored["x"].shape[2:]), tuple(x.shape[1:])
        if theirs != own:
            problem = f"the chords in {self.file} have shape {theirs}, the data {own}."
            remedy = "Train on the data of the run that made them."
            raise UsageError(problem, key="coupling", remedy=remedy)
        i = torch.randint(trajectories, (len(x),), generator=rng, device=rng.device).cpu()
        m = torch.randint(intervals, (len(x),), generator=rng, device=rng.device).cpu()
        moved = dict(conditions)
        if moved.get("labels") is not None:
            if "labels" not in stored:
                problem = f"the network needs labels, but the chords in {self.file} have none."
                remedy = "Set network.label_dim=0, or take chords of a class-conditional run."
                raise UsageError(problem, key="coupling", remedy=remedy)
            moved["labels"] = stored["labels"][i].to(x.device)
        return Pairs(
            x=stored["x"][i, m].to(x),
            e=stored["e"][i, m].to(e),
            conditions=moved,
            t=stored["t"][m].to(x.device),
        )


def _stored(folder: FilePath, name: str | None) -> FilePath:
    """The chords of this name; incomplete ones, without a manifest, are ignored."""
    there = {file.stem: file.with_suffix(".npz") for file in sorted(folder.glob("[!.]*.json"))}
    if not there:
        raise UsageError(
            f"there are no chords in {folder}.", key="coupling.run", remedy=f"Make them: {_MAKE}."
        )
    listed = ", ".join(there)
    if name is None and len(there) > 1:
        remedy = f"Choose one with coupling.name=NAME: {listed}."
        raise UsageError(
            f"there are several chords in {folder}.", key="coupling.name", remedy=remedy
        )
    if name is not None and name not in there:
        problem = f"there are no chords {name!r} in {folder}."
        raise UsageError(problem, key="coupling.name", remedy=f"It has: {listed}.")
    return there[name or listed]
