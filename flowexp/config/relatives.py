"""Compares a config with those of the runs it refers to, and finds what does not fit.

Everything is read from ``config.yaml`` and ``manifest.json``; no weights are opened. Missing or
unreadable files are reported elsewhere and ignored here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeGuard

from flowexp.config.differences import differing, shown_value
from flowexp.config.override_text import typed
from flowexp.config.problems import Problem
from flowexp.config.renamed import present
from flowexp.config.sources import CONFIG
from flowexp.config.stand_in import class_value
from flowexp.config.stored import choices_of, read_manifest_of_pairs, read_stored
from flowexp.errors import UsageError
from flowexp.requirements import UnknownError
from flowexp.tree import leaves, select

__all__ = ["differing_data", "problems_with_relatives"]

Config = Mapping[str, Any]

_RANGE = (".t_min", ".t_max")


def problems_with_relatives(
    config: Config, overrides: Sequence[str], *, parent: str | None = None
) -> Iterator[Problem]:
    """Problems of a training with its pairs, its teacher and its initial weights.

    Args:
        config: The plain config of a training.
        overrides: As typed.
        parent: The run that ``from=`` names.
    """
    yield from _unused(config, overrides)
    for key in ("teacher", "init"):
        run = config.get(key)
        if isinstance(run, str) and (stored := _stored(run)) is not None:
            name = "from" if key == "init" and parent is not None else key
            if name != "teacher":
                said = parent is None or any(text.startswith("init=") for text in overrides)
                yield from _other_meaning(config, stored, run=run, said=said)
            yield from _other_shape(config, _space_of(stored), key=name, what=run)
    pairs = config.get("pairs")
    for folder in [pairs] if isinstance(pairs, str) else pairs or []:
        with suppress(UsageError, ValueError, KeyError, TypeError):
            shape = tuple(map(int, read_manifest_of_pairs(Path(folder))["shape"]))
            yield from _other_shape(config, shape, key="pairs", what=str(folder))


def _unused(config: Config, overrides: Sequence[str]) -> Iterator[Problem]:
    """Problems with a teacher, or with a choice of weights, that the command names for nothing."""
    given = {text.partition("=")[0] for text in overrides}
    teacher = config.get("teacher")
    if teacher is not None and "teacher" in given:
        parts = {name: value for name, value in config.items() if isinstance(value, Mapping)}
        if not any(value == teacher for _, value in leaves(parts)):
            text = f"no part of this training uses {teacher}."
            remedy = (
                "Choose an objective that has a teacher, such as objective=split_mean_flow_teacher "
                "(flowexp list objective shows all), or leave teacher out."
            )
            yield Problem("teacher", text, remedy)
    for key in ("teacher", "init"):
        weights = config.get(f"{key}_weights")
        if f"{key}_weights" in given and weights is not None and config.get(key) is None:
            text = f"{weights} has no effect, since {key} is null."
            yield Problem(f"{key}_weights", text, f"Give {key}=RUN too, or leave it out.")


def _stored(run: str) -> dict[str, Any] | None:
    """The config of a run, if it can be read."""
    with suppress(UsageError):
        found: dict[str, Any] = read_stored(Path(run) / CONFIG)
        return found
    return None


def _other_meaning(config: Config, stored: Config, *, run: str, said: bool) -> Iterator[Problem]:
    """Problems with another path or parameterization than the weights were trained with."""
    for group in ("path", "parameterization"):
        key, before, now = group, stored.get(group), config.get(group)
        if _is_flow_map(now) and not _is_flow_map(before):
            key, now = f"{group}.of", now.get("of")  # its predictions at one time
        if _reads_alike(before, now):
            continue
        found = differing({key: before}, {key: now})
        found = {key: values for key, values in found.items() if not key.endswith(_RANGE)}
        classes = {key: values for key, values in found.items() if key.endswith("_target_")}
        for key, values in list((classes or found).items())[:1]:
            name = key.removesuffix("._target_")
            then, now = (shown_value(key, value) for value in values)
            text = f"{run} was trained with {then}; with {now} its weights mean something else."
            if said:
                yield Problem(name, text, "The training starts from them anyway.", refuses=False)
            else:
                remedy = f"Leave {group} out, or add {typed('init', run)} to use them anyway."
                yield Problem(name, text, remedy)


def _is_flow_map(parameterization: object) -> TypeGuard[Config]:
    """Whether a parameterization is a flow map around another one."""
    target = select(parameterization, "_target_")
    with suppress(UnknownError):
        return isinstance(target, str) and bool(class_value(present(target), "is_flow_map"))
    return False


def _reads_alike(before: object, now: object) -> bool:
    """Whether a parameterization declares that weights trained with another fit it unchanged."""
    target = select(now, "_target_")
    with suppress(UnknownError):
        if isinstance(target, str):
            same = class_value(present(target), "reads_weights_of")
            return isinstance(same, tuple) and select(before, "_target_") in same
    return False


def _shape_of(dataset: object) -> tuple[int, ...] | None:
    """The shape of a sample, from the config of a data set; None if unknown."""
    dim = select(dataset, "dim")
    if isinstance(dim, int):
        return (dim,)
    sides = [select(dataset, name) for name in ("channels", "resolution", "resolution")]
    return tuple(sides) if all(isinstance(side, int) for side in sides) else None


def _space_of(config: Config) -> tuple[int, ...] | None:
    """The shape of a sample of the flow: of latents, or of the data; None if unknown."""
    return _shape_of(config.get("autoencoder")) or _shape_of(config.get("dataset"))


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) if len(shape) != 1 else f"points of {shape[0]} dimensions"


def _other_shape(
    config: Config, shape: tuple[int, ...] | None, *, key: str, what: str
) -> Iterator[Problem]:
    own = _space_of(config)
    if None in (own, shape) or own == shape:
        return
    made = f"the pairs in {what} are" if key == "pairs" else f"{what} was trained on"
    remedy = "Choose the dataset that "
    yield Problem(
        key,
        f"{made} {_times(shape or ())}, but the dataset here is {_times(own or ())}.",
        remedy + "they were made with, or other pairs."
        if key == "pairs"
        else remedy + "it was trained on, or another run.",
    )


def differing_data(
    config: Config,
    *,
    run: str,
    chosen: str | None,
    options: Callable[[], Mapping[str, Config]],
) -> Problem | None:
    """The problem of a data set that does not fit the network of a run; None if it fits.

    Args:
        config: The plain config of a verb that starts from a run.
        run: The run directory.
        chosen: The name of the chosen data set.
        options: Reads the configs of all data sets, by name.
    """
    stored = _stored(run) or {}
    there, here = stored.get("dataset"), config.get("dataset")
    labelled = bool(select(config, "network.label_dim"))
    if not isinstance(there, Mapping) or not isinstance(here, Mapping):
        return None
    if _shape_of(there) is None or _shape_of(here) is None or _fits(here, there, labelled):
        return None
    own = choices_of(run).get("dataset", "its own data")
    names = {name for name, other in options().items() if _fits(other, there, labelled)}
    return Problem(
        "dataset",
        f"{run} was trained on {own} ({_described(there)}), but {chosen or 'this'} is "
        f"{_described(here)}.",
        f"These fit: {', '.join(typed('dataset', name) for name in sorted(names - {'run'}))}."
        if names
        else "Leave it out.",
    )


def _fits(other: Config, own: Config, labelled: bool) -> bool:
    classes = not labelled or other.get("num_classes") == own.get("num_classes")
    return classes and _shape_of(other) is not None and _shape_of(other) == _shape_of(own)


def _described(dataset: Config) -> str:
    classes = dataset.get("num_classes") or "no"
    return f"{_times(_shape_of(dataset) or ())}, {classes} classes"
