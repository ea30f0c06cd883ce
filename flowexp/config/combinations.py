"""The jobs of a sweep: its combinations of values, and the ones that a problem concerns."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hydra.core.override_parser.types import Override

from flowexp.config.names import settings
from flowexp.config.problems import Problem

__all__ = ["Combination", "combinations", "said_once"]

_MOST = 64


@dataclass(frozen=True)
class Combination:
    """One job's overrides, as typed, and the swept ones among them as key and value."""

    settings: tuple[str, ...]
    swept: tuple[tuple[str, str], ...]


def combinations(parsed: Sequence[Override]) -> list[Combination]:
    """The combinations of a sweep; of more than 64, a selection with every value of each key.

    Of a key with more than 64 values, evenly spaced ones are taken, including the first and last.
    """
    choices = [_some(settings(override)) for override in parsed]
    first = tuple(values[0] for values in choices)
    one_changed = (
        (*first[:place], value, *first[place + 1 :])
        for place, values in enumerate(choices)
        for value in values[1:]
    )
    all_of_them = itertools.product(*choices)
    # A product of 64 or fewer is complete, and in the order in which it runs.
    ordered = list(itertools.islice(all_of_them, _MOST + 1))
    if len(ordered) > _MOST:
        ordered = list(itertools.islice(dict.fromkeys([first, *one_changed, *ordered]), 2 * _MOST))
    swept = [o.is_sweep_override() for o in parsed]
    return [
        Combination(
            job,
            tuple(
                (str(o.key_or_group), text.partition("=")[2])
                for o, text, varies in zip(parsed, job, swept, strict=True)
                if varies
            ),
        )
        for job in ordered
    ]


def _some(values: list[str]) -> list[str]:
    if len(values) <= _MOST:
        return values
    last = len(values) - 1
    return [values[round(last * number / (_MOST - 1))] for number in range(_MOST)]


def said_once(jobs: Sequence[Combination], problems: Sequence[Sequence[Problem]]) -> list[Problem]:
    """The problems of all jobs, each once, with the swept values at which it occurs."""
    places: dict[Problem, list[Combination]] = {}
    for job, own in zip(jobs, problems, strict=True):
        for problem in own:
            places.setdefault(problem, []).append(job)
    return [_located(problem, jobs, found) for problem, found in places.items()]


def _located(problem: Problem, jobs: Sequence[Combination], found: list[Combination]) -> Problem:
    if len(found) == len(jobs):
        return problem
    named = []
    for place, (key, _) in enumerate(found[0].swept):
        values, every = (
            list(dict.fromkeys(job.swept[place][1] for job in of)) for of in (found, jobs)
        )
        # A problem at the key itself names its value.
        if len(values) < len(every) and problem.key.partition("[")[0] != key:
            named.append(f"{key}={','.join(values)}")
    return replace(problem, text=f"{problem.text} (With {' '.join(named)}.)") if named else problem
