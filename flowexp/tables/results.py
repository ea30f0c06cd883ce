"""The results of tables and claims in plain values that survive JSON."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from flowexp.tree import mapped

__all__ = ["ClaimResult", "Measurement", "RowResult", "TableResult"]

_Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number that JSON may hold as null (nan) or as a word (infinity)."""


@dataclass(frozen=True, kw_only=True)
class _Stored:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins for JSON."""
        return dict(mapped(asdict(self), _plain))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The result that ``to_dict`` described; ValueError for any other mapping."""
        try:
            return TypeAdapter(cls).validate_python(dict(content))
        except ValidationError as error:
            found = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise ValueError(f"not a {cls.__name__} ({'; '.join(found)})") from error


@dataclass(frozen=True, kw_only=True)
class Measurement(_Stored):
    """One measured cell: a number for each training seed, and what it was measured with.

    Attributes:
        values: One number per training seed, whose ``mean`` and ``minimum`` follow.
        spread: Their sample standard deviation (ddof 1); nan with one seed.
        title: Full protocol title, ``FD[EfficientNet-Lite0 b4, 64px] 2k on fashion10k``.
        protocol: Protocol of the first record, see :class:`flowexp.metrics.protocol.Protocol`.
        n_gen: Number of generated samples behind each value.
        nfe: Network evaluations per sample.
        seconds: Wall time of training and evaluation over all seeds.
        device: Device these seconds were spent on.
        floor: The score of held-out real data; None where it was not measured.
        notice: A caveat of the data; None if there is none.
    """

    values: tuple[_Number, ...]
    mean: _Number
    spread: _Number
    minimum: _Number
    seeds: tuple[int, ...]
    title: str
    protocol: Mapping[str, Any]
    n_gen: int
    nfe: _Number
    seconds: _Number
    device: str
    floor: float | None
    notice: str | None


@dataclass(frozen=True, kw_only=True)
class RowResult(_Stored):
    """A row of a table, or an arm of a claim, with its published and its measured number.

    Attributes:
        published_source: Place of the published number, for example ``Table 2, F``.
        verified: Whether the published number was checked against the publication; else recalled.
        measured: The measurement; None unless the status is ``done``.
        status: Whether its jobs are ``done``, ``missing`` (not run yet) or ``failed``.
        log: Log file of the job that failed.
        scaled: Whether a budget made the row smaller than published.
        mismatch: Readable differences between the published and the measured protocol.
        runs: Run directories behind the number.
    """

    label: str
    published: float | None
    published_source: str | None
    published_nfe: float | None
    verified: bool
    measured: Measurement | None
    status: Literal["done", "missing", "failed"]
    log: str | None
    scaled: bool
    mismatch: tuple[str, ...]
    runs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TableResult(_Stored):
    """A whole table, its rows in the order of the publication.

    Attributes:
        name: Name of the table's file, for example ``edm/table2``.
        metric: Name of the metric the publication reports, for example ``fid``.
        protocol: The published protocol as the table's file states it.
        budget: Name of the budget it was measured with.
        versions: Versions of the packages it was measured with.
    """

    name: str
    title: str
    source: str
    metric: str
    protocol: Mapping[str, Any]
    budget: str
    rows: tuple[RowResult, ...]
    hardware: str
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ClaimResult(_Stored):
    """The result of testing a published claim.

    Attributes:
        name: Name of the claim's file, for example ``rfpp/reflow_straightens``.
        title: The claimed effect, one sentence.
        published: The published figures, as text.
        arms: The last is claimed to be better than the others.
        verdict: The result of the test; ``missing`` while arms are.
        test: The test, in words.
        statistic: Its statistic; nan while arms are missing.
        p_value: Its p value in the claimed direction; nan while arms are missing.
        budget: Name of the budget it was measured with.
    """

    name: str
    title: str
    source: str
    published: str
    arms: tuple[RowResult, ...]
    direction: Literal["lower", "higher"]
    verdict: Literal["holds", "does not hold", "undecided", "missing"]
    test: str
    statistic: _Number
    p_value: _Number
    budget: str
    hardware: str


def _plain(value: Any) -> Any:  # noqa: ANN401 -- any value of these classes
    """JSON has neither nan (null here) nor infinity (a word here)."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
