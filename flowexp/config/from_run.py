"""``train run=DIR`` continues a run, ``train from=RUN`` starts a new run from another.

Both take every group from the stored config, as the sampling verbs do (``sampler: run``), through
primary configs of their own. With ``from=RUN``, ``dataset``, ``path``, ``network`` and
``parameterization`` stay those of the run even under ``experiment=``. In all other groups the
experiment overrides the run, and the command line overrides both.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from flowexp.config.hydra_internals import ConfigRepository, set_values
from flowexp.config.override_text import command
from flowexp.config.problems import Problem
from flowexp.config.schema import TRAIN_FROM, TRAIN_RUN
from flowexp.config.sources import CONFIG, run_in
from flowexp.config.stored import choices_of, read_stored
from flowexp.config.trust import USER, Author
from flowexp.errors import UsageError
from flowexp.tree import leaves, select

__all__ = ["MODEL_GROUPS", "author_of", "kept_choices", "primary_config",
           "problems_of_start", "restore_derived", "restore_model"]  # fmt: skip

MODEL_GROUPS = ("dataset", "autoencoder", "path", "network", "parameterization")
"""Groups that give the weights their meaning."""

_INTERPOLATION = re.compile(r"\$\{(?:oc\.select:)?(\w+(?:\.\w+)+)(?:,null)?\}")
_SCALARS = re.compile(r"\$\{oc\.select:(parameterization\.\w+),\[\]\}")
_INPUTS = re.compile(r"\$\{oc\.select:(task\.inputs),\{\}\}")
_OF_TRAINING = ("dropout", "noise")


def primary_config(name: str, overrides: Sequence[str]) -> str:
    """The primary config of a command line; only that of ``train`` depends on the overrides."""
    if name != "train":
        return name
    named = {text.partition("=")[0] for text in overrides}
    if "run" in named:
        return TRAIN_RUN
    return TRAIN_FROM if "parent" in named else name


def problems_of_start(
    name: str, overrides: Sequence[Override], *, multirun: bool
) -> Iterator[Problem]:
    """Overrides that ``train run=DIR`` cannot be combined with."""
    if name != TRAIN_RUN:
        return
    given = {str(o.key_or_group): o for o in overrides}
    run = run_in([str(o.input_line) for o in overrides]) or "RUN"
    if "parent" in given:
        text = "run= continues a run and from= starts a new one; they exclude each other."
        yield Problem("parent", text, "Leave one of them out.")
    if "dirs.run" in given:
        text = f"{run} is continued in its own folder."
        remedy = f"Leave it out; from={run} starts a new run in another folder."
        yield Problem("dirs.run", text, remedy)
    if "experiment" in given:
        start = command("train", experiment=given["experiment"].value())
        text = f"{run} is continued with its own config."
        yield Problem("experiment", text, f"Leave it out, or start a new run: {start} from={run}")
    if multirun:
        text = "a sweep trains several runs, but run= continues one."
        remedy = f"Continue each run with its own command, or sweep over new runs with from={run}."
        yield Problem("run", text, remedy)


def author_of(config: Mapping[str, Any]) -> Author:
    """The author of a training's config: the user, or the author of the run it is taken from."""
    run = config.get("run") or config.get("parent")
    return USER if run is None else Author.of(Path(run) / CONFIG)


def kept_choices(name: str, overrides: Sequence[Override]) -> list[str]:
    """Overrides that keep the model's groups those of the run under any experiment."""
    given = {str(o.key_or_group) for o in overrides}
    if name != TRAIN_FROM or "experiment" not in given:
        return []
    return [f"{group}=run" for group in MODEL_GROUPS if group not in given]


def restore_model(
    config: DictConfig, overrides: Sequence[Override], *, recipe: DictConfig
) -> list[str]:
    """Undo an experiment's changes to the model of the run.

    ``recipe`` is the config of the experiment alone. Changes ``config`` in place and returns a
    sentence about the values of the experiment that are left out.
    """
    run = str(run_in([str(o.input_line) for o in overrides]))
    stored, choices = read_stored(Path(run) / CONFIG), config.hydra.runtime.choices
    differing = []
    for group in MODEL_GROUPS:
        inner = [g for g in choices if g == group or str(g).startswith(f"{group}/")]
        if any(choices[g] not in ("run", None) for g in inner):
            continue
        if group not in stored:
            continue  # of a run that was stored before there was the group
        with open_dict(config):
            config[group] = stored[group]
        own = [o for o in overrides if str(o.key_or_group).startswith(f"{group}.")]
        set_values(own, config)
        typed = {str(o.key_or_group) for o in own}
        try:
            wanted = OmegaConf.to_container(recipe[group], resolve=True)
        except OmegaConfBaseException:
            continue
        written = dict(leaves(OmegaConf.to_container(recipe[group], resolve=False), group))
        there = dict(leaves(stored[group], group))
        differing += [
            f"{key}={value} ({there.get(key, 'absent')})"
            for key, value in leaves(wanted, group)
            if there.get(key, "absent") != value
            and key not in typed
            and not _SCALARS.fullmatch(str(written.get(key)))
        ]
    if not differing:
        return []
    rest = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return [
        f"from={run} keeps the model of that run and leaves out of the experiment "
        f"{', '.join(differing[:3])}{rest}."
    ]


def restore_derived(
    config: DictConfig, overrides: Sequence[Override], *, repo: ConfigRepository
) -> None:
    """Restore the interpolations of a run's options, such as ``${trainer.max_kimg}``.

    A stored config holds their values, ``lr_schedule.end_kimg: 200``, which would not follow an
    override. Values that were given explicitly stay, and so do those of the model, with exceptions:
    weights without a second time can initialize a network with one (its scalars), how the
    conditions of a network are dropped in training is no part of its weights, and the size of the
    space of the flow follows the data.
    """
    lines = [str(o.input_line) for o in overrides]
    run = str(run_in(lines))
    stored, chosen = read_stored(Path(run) / CONFIG), config.hydra.runtime.choices
    given = {text.partition("=")[0].lstrip("+~") for text in [*lines, *_overrides_of(run)]}
    for group, option in choices_of(run).items():
        name, _, package = group.partition("@")
        of_model = name.partition("/")[0] in MODEL_GROUPS
        weights = of_model and name != "autoencoder"
        patterns = (_SCALARS, _INPUTS) if weights else (_INTERPOLATION,)
        known = chosen.get(name if of_model else group) == "run"
        if not known or not repo.config_exists(f"{name}/{option}"):
            continue
        found = repo.load_config(f"{name}/{option}")
        raw: Any = OmegaConf.to_container(found.config, resolve=False) if found else {}
        at = package or name.replace("/", ".")
        node = select(stored, at)
        if not isinstance(raw, dict) or not isinstance(node, Mapping):
            continue
        if raw.get("_target_") != node.get("_target_"):
            continue
        for key, text in leaves(raw, at):
            source = next(filter(None, (p.fullmatch(str(text)) for p in patterns)), None)
            if source is None or key in given:
                continue
            if source.re is _INPUTS and not _same_inputs(config, stored):
                continue
            absent: list[str] | None = [] if weights else None
            now = OmegaConf.select(config, key, default=absent, throw_on_missing=False)
            value, there = (select(stored, name) or absent for name in (key, source[1]))
            if value is not None and value == there and value == now:
                OmegaConf.update(config, key, text, force_add=True)


def _same_inputs(config: DictConfig, stored: Mapping[str, Any]) -> bool:
    """Whether the task gives the network the inputs of the run, perhaps dropped more often."""
    now = OmegaConf.select(config, "task.inputs")
    found = [{} if now is None else OmegaConf.to_container(now, resolve=True)]
    found.append(select(stored, "task.inputs") or {})
    shapes = [
        {k: v for k, v in leaves(node, "") if k.rpartition(".")[2] not in _OF_TRAINING}
        for node in found
    ]
    return shapes[0] == shapes[1]


def _overrides_of(run: str) -> list[str]:
    """The overrides of a run's latest start; empty if they cannot be read."""
    with suppress(UsageError):
        return [str(text) for text in read_stored(Path(run) / "overrides.yaml", kind=list)]
    return []
