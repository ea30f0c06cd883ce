"""Groups of runs that differ only in their training seed, and the names of these groups."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowexp.report.run_record import RunRecord
from flowexp.tree import leaves, without

__all__ = ["ABSENT", "SEED", "SeedGroup", "config_differences", "seed_groups"]

SEED = "seed"
ABSENT = "-"
_PLACES = ("dirs", "launcher")
"""Groups that do not change what a run computes."""
_UNNAMED = (*_PLACES, "hydra", "logger", "callbacks", "debug", "local")
_MOST_LETTERS = 44
"""Maximum length of a name; longer names are replaced by those of the run directories."""


@dataclass(frozen=True, kw_only=True)
class SeedGroup:
    """Runs of one configuration, with different training seeds if there are several.

    Attributes:
        name: The values that differ from other groups, ``path.D=64``; empty if there are none, or
            too many.
        runs: At least one.
    """

    name: str
    runs: tuple[RunRecord, ...]

    @property
    def run_names(self) -> str:
        """The names of its runs: ``0, 2``."""
        return ", ".join(run.name for run in self.runs)

    @property
    def title(self) -> str:
        """Its name, or else those of its runs."""
        return self.name or self.run_names


def config_differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Dotted keys whose values differ, each with its text in every config."""
    flat = [dict(leaves(without(config, _PLACES))) for config in configs]
    keys = dict.fromkeys(key for own in flat for key in own)
    texts = {key: [_text(own.get(key, ABSENT)) for own in flat] for key in keys}
    return {key: own for key, own in texts.items() if len(set(own)) > 1}


def seed_groups(runs: Sequence[RunRecord]) -> list[SeedGroup]:
    """The runs in groups that differ only in :data:`SEED`, in the order of their first runs.

    Runs with the same configuration and seed are not a sample over seeds: each is a group.
    """
    differing = config_differences([run.config for run in runs])
    differing.pop(SEED, None)
    rows = list(zip(*differing.values(), strict=True)) or [()] * len(runs)
    members: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        members.setdefault(row, []).append(index)
    together = list(members.values())
    names = _names(runs, differing, together)
    groups = []
    for own, name in zip(together, names, strict=True):
        seeds = [runs[index].config.get(SEED) for index in own]
        distinct = None not in seeds and len(set(map(str, seeds))) == len(seeds)
        parts = [own] if distinct else [[index] for index in own]
        groups += [SeedGroup(name=name, runs=tuple(runs[i] for i in part)) for part in parts]
    return groups


def _names(
    runs: Sequence[RunRecord], differing: Mapping[str, Sequence[str]], together: list[list[int]]
) -> list[str]:
    """The names of the groups, with as few differing keys as tell them apart."""
    first = [own[0] for own in together]
    chosen: dict[str, Sequence[str]] = {}
    told_apart = 1
    for key, values in _candidates(runs, differing):
        tried = {**chosen, key: values}
        parts = len({tuple(values[index] for values in tried.values()) for index in first})
        if parts > told_apart:
            chosen, told_apart = tried, parts
    named = [
        " ".join(f"{key}={values[index]}" for key, values in chosen.items()) for index in first
    ]
    short = all(len(name) <= _MOST_LETTERS for name in named)
    return named if short and told_apart == len(together) else [""] * len(together)


def _candidates(
    runs: Sequence[RunRecord], differing: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Sequence[str]]]:
    """Differing options, the experiment first, then differing keys, typed ones first."""
    choices = [run.manifest.get("choices") or {} for run in runs]
    groups = dict.fromkeys(group for own in choices for group in own)
    options = {group: [_text(own.get(group)) for own in choices] for group in groups}
    options = {
        group: own
        for group, own in options.items()
        if len(set(own)) > 1 and group.partition("/")[0] not in _UNNAMED
    }
    typed = {text.partition("=")[0].lstrip("+~") for run in runs for text in run.overrides}
    for group in sorted(options, key=lambda group: (group != "experiment", group not in typed)):
        yield group, options[group]
    for key in sorted(differing, key=lambda key: key not in typed):
        yield key, differing[key]


def _text(value: Any) -> str:  # noqa: ANN401 -- any value of a config
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return "null" if value in (None, "None") else str(value)  # manifests hold the text None
