"""The files of tables and claims as models; every other key or value is refused by name."""

from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError

from flowexp.config.problems import did_you_mean
from flowexp.errors import UsageError

__all__ = ["Arm", "Claim", "ClaimFile", "Grid", "JobSpec", "Node", "Protocol", "Row", "Table",
           "TableFile", "checked", "refuse"]  # fmt: skip


def _flat(value: Any) -> Any:  # noqa: ANN401 -- any YAML value
    """Lists within a list opened up, since YAML has no other way to extend an anchored list."""
    if not isinstance(value, list):
        return value
    return [one for part in value for one in (_flat(part) if isinstance(part, list) else [part])]


# The description of a field is the remedy for a wrong value.
_Text = Annotated[str, Field(min_length=1, description="Give it as text.")]
_Optional = Annotated[str | None, Field(description="Give it as text, or null.")]
_Number = Annotated[Annotated[float, Strict()] | None, Field(description="Give a number, or null.")]
_Integer = Annotated[int | None, Field(description="Give an integer, or null.")]
_Selection = Annotated[
    Literal["last", "best_of_snapshots"] | None,
    Field(description="Possible: last, best_of_snapshots."),
]
_Count = Annotated[int, Strict(), Field(ge=2, description="Give an integer of at least 2.")]
_Flag = Annotated[bool, Strict(), Field(description="Give true or false.")]
_GIVE_LIST = Field(description="Give a list: [key=value, ...].")
_OptionalTexts = Annotated[tuple[str, ...] | None, BeforeValidator(_flat), _GIVE_LIST]
_Texts = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: () if value is None else _flat(value)),
    _GIVE_LIST,
]
_Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: value if isinstance(value, list | tuple) else [value]),
]
_OR_EMPTY = BeforeValidator(lambda value: {} if value is None else value)
_Parents = Annotated[dict[str, _Names], _OR_EMPTY, Field(description="Give a mapping: {key: job}.")]
_Mapping = Annotated[dict[str, Any], _OR_EMPTY, Field(description="Give a mapping: {...}.")]


class Node(BaseModel):
    """A mapping in a file; keys without a field of this name are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Recipe(Node):
    """The recipe of a job.

    Attributes:
        experiment: Recipe of a training, or None.
        parents: Override key -> names of the jobs whose directories are its value.
        after: Names of jobs that must be done before, though the command does not name them, such
            as a calibration of a parent.
    """

    experiment: _Optional = None
    overrides: _Texts = ()
    parents: _Parents = {}
    after: _Texts = ()


class JobSpec(_Recipe):
    """A job before it is planned."""

    verb: Annotated[
        Literal["train", "pairs", "calibrate"],
        Field(description="Possible: train, pairs, calibrate."),
    ] = "train"

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of all jobs that must be done before."""
        return (*(name for several in self.parents.values() for name in several), *self.after)


class _Scored(_Recipe):
    """A row or an arm: a job that is scored.

    Attributes:
        job: Name of the training; None = the training described here, named by the label.
        eval: Overrides of the evaluation.
        eval_parents: Override key of the evaluation -> names of the jobs whose directories are its
            value, such as a sampler's refiner.
        calibrate: Overrides of a calibration of the training before it is scored; None = none.
        method: Name of its curve in pictures; None = the label without its number of evaluations.
        family: Methods of one family are drawn together; None = no family.
    """

    label: _Text
    method: _Optional = None
    family: _Optional = None
    job: _Optional = None
    eval: _Texts = ()
    eval_parents: _Parents = {}
    calibrate: _OptionalTexts = None

    @property
    def training(self) -> str:
        """Name of the training that is scored."""
        return self.job or self.label


class Row(_Scored):
    """A row of a table, with its number in the publication.

    Attributes:
        nfe: Network evaluations the publication states.
        source: Its place in the publication.
        verified: Whether the number was checked against the publication; else it is recalled.
    """

    published: _Number = None
    nfe: _Number = None
    source: _Optional = None
    verified: _Flag = False
    relative_to: ClassVar[tuple[str, ...] | None] = None


class Arm(_Scored):
    """An arm of a claim.

    Attributes:
        relative_to: Overrides of another evaluation of the same training, by whose number this
            one's is divided; None = the number as it is.
    """

    relative_to: _OptionalTexts = None
    published: ClassVar[float | None] = None
    nfe: ClassVar[float | None] = None
    source: ClassVar[str | None] = None
    verified: ClassVar[bool] = False


class Grid(Node):
    """Rows times columns: an entry of ``rows`` that stands for many rows.

    Attributes:
        columns: Name -> a value for each column.
        defaults: Keys of every cell; see :func:`flowexp.tables.variations.cells`.
        rows: Mappings, each with further keys of its cells, and values.
    """

    columns: Annotated[
        dict[str, list[Any]], Field(min_length=1, description="Give lists: {steps: [5, 10], ...}.")
    ]
    defaults: _Mapping = {}
    rows: Annotated[
        list[dict[str, Any]], Field(min_length=1, description="Give a list of mappings.")
    ]


class Protocol(Node):
    """The protocol that a publication states.

    Attributes:
        reference: ``training set``, that of the row's recipe; or other data in words, to which the
            numbers measured here are then not comparable.
        selection: Which weights of each training the publication reports, an option of the group
            ``selection`` of ``flowexp eval``; None = it does not say, and the last are taken.
    """

    num_samples: _Integer = None
    reference: _Optional = None
    weights: _Optional = None
    repetitions: _Integer = None
    reported: _Optional = None
    selection: _Selection = None
    notice: _Optional = None


class _File(Node):
    """What tables and claims have in common; ``defaults`` are keys of every row.

    Attributes:
        record: The number that counts where a metric gives several, such as ``recall`` of
            precision_recall; None = its first.
        jobs_of: Name of a table whose jobs are this file's too; None = none.
    """

    title: _Text
    source: _Text
    metric: _Text
    record: _Optional = None
    jobs_of: _Optional = None
    jobs: _Mapping = {}
    defaults: _Mapping = {}


_Seeds = Annotated[
    tuple[Annotated[int, Strict()], ...],
    Field(min_length=3, description="Too few for a test, or no integers: give three or more."),
]


class Table(_File):
    """The yaml of a table; see :class:`Protocol` for what the publication states.

    Attributes:
        seeds: Training seeds of a study whose recipes have the size that shows the effect, so that
            it is run as written under every budget; None = the budget chooses seeds and sizes.
    """

    protocol: _Mapping = {}
    seeds: _Seeds | None = None
    rows: Annotated[
        tuple[Any, ...], Field(min_length=1, description="Give a list of rows, each with a label.")
    ]


class TableFile(Table):
    """A table; a training that a row describes itself is a job with the row's label."""

    name: str
    jobs: dict[str, JobSpec]
    rows: tuple[Row, ...]


class Claim(_File):
    """The yaml of a claim, whose title is the claimed effect in one sentence.

    Attributes:
        published: The published figures, as text.
        direction: Which numbers are better.
        seeds: Training seeds.
        test: Name of the test, see :mod:`flowexp.tables.claims`.
        budget: The smallest budget that pays for it.
    """

    published: _Text
    direction: Annotated[Literal["lower", "higher"], Field(description="Possible: lower, higher.")]
    seeds: _Seeds = (0, 1, 2)
    num_samples: _Count
    test: Annotated[
        Literal["paired t, one-sided, 5 %"],
        Field(description="Possible: paired t, one-sided, 5 %."),
    ] = "paired t, one-sided, 5 %"
    budget: _Text = "cpu"
    arms: Annotated[
        tuple[Any, ...],
        Field(min_length=2, description="A claim compares two arms or more: [...]."),
    ]


class ClaimFile(Claim):
    """A claim; the last arm is claimed to be better than the others."""

    name: str
    jobs: dict[str, JobSpec]
    arms: tuple[Arm, ...]


_Model = TypeVar("_Model", bound=Node)


def refuse(file: str, problem: str, remedy: str) -> NoReturn:
    """Raise a :class:`UsageError` about this file."""
    raise UsageError(f"{problem}.", key=file, remedy=remedy)


def checked(model: type[_Model], node: object, *, file: str, what: str) -> _Model:
    """``node`` as ``model``; the refusal of a key or a value names it ``what`` of ``file``."""
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
