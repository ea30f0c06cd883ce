"""What the files of tables and claims may say; all else is refused by name."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError

from flowexp.config.nearest import did_you_mean
from flowexp.errors import UsageError
from flowexp.tables.specs import TEST
from flowexp.tables.variations import filled, names_in

__all__ = ["Arm", "Claim", "Grid", "Job", "Node", "Protocol", "Row", "Table", "cells", "checked",
           "refuse", "variations"]  # fmt: skip

# The description of a field is the remedy for a wrong value.
_Text = Annotated[str, Field(min_length=1, description="Give it as text.")]
_Optional = Annotated[str | None, Field(description="Give it as text, or null.")]
_Number = Annotated[Annotated[float, Strict()] | None, Field(description="Give a number, or null.")]
_Count = Annotated[int, Strict(), Field(ge=2, description="Give an integer of at least 2.")]
_Texts = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: () if value is None else value),
    Field(description="Give a list: [key=value, ...]."),
]
_Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
]
_Parents = Annotated[
    dict[str, _Names],
    BeforeValidator(lambda value: {} if value is None else value),
    Field(description="Give a mapping: {key: job}."),
]
_Mapping = Annotated[
    dict[str, Any],
    BeforeValidator(lambda value: {} if value is None else value),
    Field(description="Give a mapping: {...}."),
]
_Flag = Annotated[bool, Strict(), Field(description="Give true or false.")]


class Node(BaseModel):
    """A mapping in a file; keys without a field of this name are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Job(Node):
    """A job; see :class:`flowexp.tables.specs.JobSpec`."""

    verb: Annotated[
        Literal["train", "pairs", "calibrate"],
        Field(description="Possible: train, pairs, calibrate."),
    ] = "train"
    experiment: _Optional = None
    overrides: _Texts = ()
    parents: _Parents = {}
    after: _Texts = ()


class _Scored(Node):
    """What rows and arms have in common."""

    label: _Text
    job: _Optional = None
    experiment: _Optional = None
    overrides: _Texts = ()
    parents: _Parents = {}
    after: _Texts = ()
    eval: _Texts = ()
    eval_parents: _Parents = {}
    calibrate: Annotated[
        tuple[str, ...] | None, Field(description="Give a list: [key=value, ...].")
    ] = None


class Row(_Scored):
    """A row of a table; see :class:`flowexp.tables.specs.RowSpec`."""

    published: _Number = None
    nfe: _Number = None
    source: _Optional = None
    verified: _Flag = False


class Arm(_Scored):
    """An arm of a claim; see :class:`flowexp.tables.specs.RowSpec`."""

    relative_to: Annotated[
        tuple[str, ...] | None, Field(description="Give a list: [key=value, ...].")
    ] = None


class Grid(Node):
    """Rows times columns: an entry of ``rows`` that stands for many rows.

    Attributes:
        columns: Name -> a value for each column.
        defaults: What every cell has; see :func:`cells`.
        rows: Mappings, each with what its cells have beyond the defaults, and values.
    """

    columns: Annotated[
        dict[str, list[Any]], Field(min_length=1, description="Give lists: {steps: [5, 10], ...}.")
    ]
    defaults: _Mapping = {}
    rows: Annotated[
        list[dict[str, Any]], Field(min_length=1, description="Give a list of mappings.")
    ]


class Protocol(Node):
    """What a publication says of its numbers."""

    num_samples: Annotated[int | None, Field(description="Give an integer, or null.")] = None
    reference: _Optional = None
    weights: _Optional = None
    repetitions: Annotated[int | None, Field(description="Give an integer, or null.")] = None
    reported: _Optional = None
    notice: _Optional = None


class _File(Node):
    title: _Text
    source: _Text
    metric: _Text
    jobs: _Mapping = {}
    defaults: _Mapping = {}


class Table(_File):
    """A table; see :class:`flowexp.tables.specs.TableFile`."""

    protocol: _Mapping = {}
    rows: Annotated[
        list[Any], Field(min_length=1, description="Give a list of rows, each with a label.")
    ]


class Claim(_File):
    """A claim; see :class:`flowexp.tables.specs.ClaimFile`."""

    published: _Text
    direction: Annotated[Literal["lower", "higher"], Field(description="Possible: lower, higher.")]
    seeds: Annotated[
        tuple[Annotated[int, Strict()], ...],
        Field(min_length=3, description="Too few for a test, or no integers: give three or more."),
    ] = (0, 1, 2)
    num_samples: _Count
    test: Annotated[
        Literal["paired t, one-sided, 5 %"], Field(description=f"Possible: {TEST}.")
    ] = "paired t, one-sided, 5 %"
    budget: _Text = "cpu"
    arms: Annotated[
        list[Any], Field(min_length=2, description="A claim compares two arms or more: [...].")
    ]


_Model = TypeVar("_Model", bound=Node)


def refuse(file: str, problem: str, remedy: str) -> NoReturn:
    """End with a message about this file.

    Raises:
        UsageError: Always.
    """
    raise UsageError(f"{problem}.", key=file, remedy=remedy)


def checked(model: type[_Model], node: object, *, file: str, what: str) -> _Model:
    """``node`` as ``model``.

    Args:
        model: What it should be.
        node: Content of the file, plain.
        file: The file, as messages name it.
        what: The part of it, as messages name it.

    Raises:
        UsageError: It is no mapping, has an unknown key, or a value that is not allowed.
    """
    if not isinstance(node, dict):
        refuse(file, f"{what} is {node!r}", "Give a mapping: {...}.")
    try:
        return model.model_validate(node)
    except ValidationError as error:
        # An unknown key is often the reason why another one is missing.
        found = min(error.errors(), key=lambda entry: entry["type"] != "extra_forbidden")
    key = str(found["loc"][0])
    fields = model.model_fields
    if key not in fields:
        refuse(file, f"{what} has no key {key!r}", did_you_mean(key, fields))
    refuse(file, f"{key} of {what} is {node.get(key)!r}", fields[key].description or "")


def cells(node: Mapping[str, Any], *, file: str) -> Iterator[dict[str, Any]]:
    """The rows that a grid stands for: row by row, and in each from the first column on.

    A cell is the grid's ``defaults`` with the keys that its row gives (``eval`` replaces ``eval``).
    Texts in it may hold names in braces: those of ``columns``, and every other key of the row,
    whose value is a list with an entry for each column, or one value for all columns. So may
    ``published``, ``nfe``, ``source`` and ``verified`` be lists by column::

        - columns: {steps: [5, 10], sigma_min: [0.01, 0.003]}
          defaults: {label: "{solver}, {steps}", job: edm, nfe: "{steps}",
                     eval: ["sampler={sampler}", "sampler.steps={steps}"]}
          rows:
            - {solver: Heun, sampler: edm_heun, published: [16.57, 2.51]}
            - {solver: UniPC, sampler: unipc, published: [2.85, 2.01]}

    Yields:
        A row each, plain.

    Raises:
        UsageError: A list has not one value for each column, or names and values do not match.
    """
    grid = checked(Grid, node, file=file, what="a grid")
    count = _same_length(grid.columns, None, file=file, what="a grid's columns")
    for given in grid.rows:
        own = {key: value for key, value in given.items() if key in Row.model_fields}
        values = {key: value for key, value in given.items() if key not in own}
        row = {**grid.defaults, **own}
        shown = ", ".join(str(v) for v in given.values() if not isinstance(v, list | dict))
        what = f"the grid's row {shown!r}"
        by_column = {
            key: value
            for key, value in given.items()
            if isinstance(value, list) and (key not in own or key in _BY_COLUMN)
        }
        _same_length(by_column, count, file=file, what=what)
        for key in values:
            if key not in names_in(row):
                problem = f"{what} has no key {key!r}, and no text holds {{{key}}}"
                refuse(file, problem, did_you_mean(key, {*Row.model_fields, *names_in(row)}))
        for column in range(count):
            common = {key: value[column] for key, value in grid.columns.items()}
            here = {key: value[column] for key, value in by_column.items()}
            cell = {**row, **{key: value for key, value in here.items() if key in own}}
            yield _filled(cell, {**common, **values, **here}, file=file, what=what)


_BY_COLUMN = ("published", "nfe", "source", "verified")


def variations(content: Mapping[str, Any], *, file: str) -> dict[str, dict[str, Any]]:
    """The claims that a file with ``vary`` stands for, by the last part of their names.

    ``vary`` is a list of mappings, one for each claim: its ``name``, and a value for every name in
    braces in the file's texts::

        title: At {calls} evaluations UniPC samples better than DPM-Solver++
        vary:
          - {name: unipc_beats_dpmpp_5, calls: 5}
          - {name: unipc_beats_dpmpp_8, calls: 8}

    Raises:
        UsageError: An entry of ``vary`` has no name or that of another, or names and values do
            not match.
    """
    common = {key: value for key, value in content.items() if key != "vary"}
    found: dict[str, dict[str, Any]] = {}
    listed = content["vary"]
    if not isinstance(listed, list) or not listed:
        refuse(file, f"vary is {listed!r}", "Give a list: [{name: ..., ...}, ...].")
    used = names_in(common)
    for entry in listed:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or name in found:
            refuse(file, f"name of {entry!r} in vary is {name!r}", "Give each its own name.")
        for key in entry:
            if key != "name" and key not in used:
                problem = f"{name!r} in vary has {key!r}, but no text holds {{{key}}}"
                refuse(file, problem, did_you_mean(str(key), used))
        found[name] = _filled(common, entry, file=file, what=f"{name!r} in vary")
    return found


def _same_length(lists: Mapping[str, list[Any]], count: int | None, *, file: str, what: str) -> int:
    """How many values each list has; all have as many."""
    for key, value in lists.items():
        count = len(value) if count is None else count
        if len(value) != count:
            problem = f"{key} of {what} has {len(value)} values for {count} columns"
            refuse(file, problem, "Give one for each column, null where there is none.")
    return count or 0


def _filled(
    node: dict[str, Any], values: Mapping[str, Any], *, file: str, what: str
) -> dict[str, Any]:
    for name in sorted(names_in(node)):
        if name not in values:
            problem = f"a text holds {{{name}}}, but {what} has no value for it"
            refuse(file, problem, did_you_mean(name, values))
    return {key: filled(value, values) for key, value in node.items()}
