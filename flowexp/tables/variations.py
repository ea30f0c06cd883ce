"""Grids of rows, and files that vary: texts with names in braces, written out for each value."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from flowexp.config.problems import did_you_mean
from flowexp.tables.syntax import Grid, Row, checked, refuse

__all__ = ["cells", "variations"]

_NAME = re.compile(r"\{(\w+)\}")
_BY_COLUMN = ("published", "nfe", "source", "verified")


def cells(node: Mapping[str, Any], *, file: str) -> Iterator[dict[str, Any]]:
    """The rows that a grid stands for: row by row, and in each from the first column on.

    A cell is the grid's ``defaults`` with the keys that its row gives (``eval`` replaces ``eval``).
    Texts in it may hold names in braces: those of ``columns``, and the other keys of the row,
    whose value is a list with an entry for each column, or one value for all columns. So may
    ``published``, ``nfe``, ``source`` and ``verified`` be lists by column::

        - columns: {steps: [5, 10], sigma_min: [0.01, 0.003]}
          defaults: {label: "{solver}, {steps}", job: edm, nfe: "{steps}",
                     eval: ["sampler={sampler}", "sampler.steps={steps}",
                            "sampler.time_grid.sigma_min={sigma_min}"]}
          rows:
            - {solver: Heun, sampler: edm_heun, published: [16.57, 2.51]}
            - {solver: UniPC, sampler: unipc, published: [2.85, 2.01]}
    """
    grid = checked(Grid, node, file=file, what="a grid")
    count = _same_length(grid.columns, None, file=file, what="a grid's columns")
    unused = set(grid.columns)
    for given in grid.rows:
        own = {key: value for key, value in given.items() if key in Row.model_fields}
        values = {key: value for key, value in given.items() if key not in own}
        named = {key: value for key, value in own.items() if isinstance(value, str)}
        row = {**grid.defaults, **own}
        used = _names_in(row)
        unused -= used
        shown = ", ".join(str(v) for v in given.values() if not isinstance(v, list | dict))
        what = f"the grid's row {shown!r}"
        by_column = {
            key: value
            for key, value in given.items()
            if isinstance(value, list) and (key not in own or key in _BY_COLUMN)
        }
        _same_length(by_column, count, file=file, what=what)
        for key in values:
            if key not in used:
                problem = f"{what} has no key {key!r}, and no text holds {{{key}}}"
                refuse(file, problem, did_you_mean(key, {*Row.model_fields, *used}))
        for column in range(count):
            common = {key: value[column] for key, value in grid.columns.items()}
            here = {key: value[column] for key, value in by_column.items()}
            cell = {**row, **{key: value for key, value in here.items() if key in own}}
            yield _written_out(cell, {**common, **named, **values, **here}, file=file, what=what)
    for key in sorted(unused):
        problem = f"a grid's columns have {key!r}, but no text holds {{{key}}}"
        refuse(file, problem, "Use it in a text, or delete the column.")


def variations(content: Mapping[str, Any], *, file: str) -> dict[str, dict[str, Any]]:
    """The tables or claims that a file with ``vary`` stands for, by the last part of their names.

    ``vary`` is a list of mappings, one for each: its ``name``, and a value for every name in braces
    in the file's texts, but for those of a table's grids::

        title: At {calls} evaluations UniPC samples better than DPM-Solver++
        vary:
          - {name: unipc_beats_dpmpp_5, calls: 5}
          - {name: unipc_beats_dpmpp_8, calls: 8}
    """
    common = {key: value for key, value in content.items() if key != "vary"}
    found: dict[str, dict[str, Any]] = {}
    listed = content["vary"]
    if not isinstance(listed, list) or not listed:
        refuse(file, f"vary is {listed!r}", "Give a list: [{name: ..., ...}, ...].")
    used = _names_in(common)
    for entry in listed:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or name in found:
            refuse(file, f"name of {entry!r} in vary is {name!r}", "Give each its own name.")
        for key in entry:
            if key != "name" and key not in used:
                problem = f"{name!r} in vary has {key!r}, but no text holds {{{key}}}"
                refuse(file, problem, did_you_mean(str(key), used))
        # Names of a grid are written out with its cells.
        values = {**{own: f"{{{own}}}" for own in _names_of_grids(common)}, **entry}
        found[name] = _written_out(common, values, file=file, what=f"{name!r} in vary")
    return found


def _names_of_grids(content: Mapping[str, Any]) -> set[str]:
    """The names that the columns and rows of grids give values to."""
    rows = content.get("rows")
    grids = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    nodes = [[grid.get("columns"), *(grid.get("rows") or [])] for grid in grids]
    return {key for group in nodes for node in group if isinstance(node, dict) for key in node}


def _same_length(lists: Mapping[str, list[Any]], count: int | None, *, file: str, what: str) -> int:
    """The common length of the lists."""
    for key, value in lists.items():
        count = len(value) if count is None else count
        if len(value) != count:
            problem = f"{key} of {what} has {len(value)} values for {count} columns"
            refuse(file, problem, "Give one for each column, null where there is none.")
    return count or 0


def _written_out(
    node: dict[str, Any], values: Mapping[str, Any], *, file: str, what: str
) -> dict[str, Any]:
    for name in sorted(_names_in(node)):
        if name not in values:
            problem = f"a text holds {{{name}}}, but {what} has no value for it"
            refuse(file, problem, did_you_mean(name, values))
    return {key: _filled(value, values) for key, value in node.items()}


def _names_in(node: object) -> set[str]:
    """The names in braces in all texts of ``node``."""
    if isinstance(node, str):
        return set(_NAME.findall(node))
    if isinstance(node, Mapping):
        return _names_in(list(node.items()))
    return set().union(*map(_names_in, node)) if isinstance(node, list | tuple) else set()


def _filled(node: object, values: Mapping[str, object]) -> object:
    """``node`` with every ``{name}`` in its texts replaced by the value of that name.

    A text that is nothing but ``{name}`` becomes the value itself, for example a number or a list.
    In a list it stands for none, one or several entries: null is left out, a list is inserted.
    """
    if isinstance(node, dict):
        return {_filled(key, values): _filled(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [entry for part in node for entry in _entries(part, values)]
    if not isinstance(node, str):
        return node
    whole = _NAME.fullmatch(node)
    return values[whole[1]] if whole else _NAME.sub(lambda m: _text(values[m[1]]), node)


def _entries(part: object, values: Mapping[str, object]) -> list[object]:
    """The entries that an entry of a list becomes."""
    value = _filled(part, values)
    if value is part or not isinstance(part, str):
        return [value]
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: object) -> str:
    """As YAML and the command line write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
