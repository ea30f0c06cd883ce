"""What a table or a claim measured, in plain values that survive JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

__all__ = ["ClaimResult", "Measured", "RowResult", "TableResult"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measured cell: a number for each training seed, and what it was measured with.

    Attributes:
        values: One number per seed.
        mean: Their mean.
        spread: Their sample standard deviation (ddof 1); nan with one seed.
        minimum: Their minimum.
        seeds: Training seeds, one per value.
        title: Full protocol title, ``FD[EfficientNet-Lite0 b4, 64px] 2k on fashion10k``.
        protocol: Protocol of the first record, see :class:`flowexp.metrics.protocol.Protocol`.
        n_gen: Number of generated samples behind each value.
        nfe: Network evaluations per sample.
        seconds: Wall time of training and evaluation over all seeds.
        device: Device these seconds were spent on.
        floor: The score of held-out real data; None where it was not measured.
        notice: A caveat of the data; None if there is none.
    """

    values: tuple[float, ...]
    mean: float
    spread: float
    minimum: float
    seeds: tuple[int, ...]
    title: str
    protocol: Mapping[str, Any]
    n_gen: int
    nfe: float
    seconds: float
    device: str
    floor: float | None
    notice: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins for JSON."""
        return _described(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The cell that ``to_dict`` described.

        Raises:
            ValueError: If a field is missing or unknown.
        """
        given = _checked(cls, content)
        given["values"] = tuple(_number(value) for value in given["values"])
        given["seeds"] = tuple(int(seed) for seed in given["seeds"])
        given["protocol"] = dict(given["protocol"])
        given["floor"] = None if given["floor"] is None else _number(given["floor"])
        for name in ("mean", "spread", "minimum", "nfe", "seconds"):
            given[name] = _number(given[name])
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """A row of a table, or an arm of a claim: what was published and what was measured.

    Attributes:
        label: Its name.
        published: The published number, if there is one.
        published_source: Where it stands, for example ``Table 2, F``.
        published_nfe: Network evaluations the publication states.
        verified: Whether the published number was checked against the publication; else recalled.
        measured: What was measured; None unless the status is ``done``.
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
    measured: Measured | None
    status: Literal["done", "missing", "failed"]
    log: str | None
    scaled: bool
    mismatch: tuple[str, ...]
    runs: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins for JSON."""
        return _described(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The row that ``to_dict`` described.

        Raises:
            ValueError: If a field is missing or unknown.
        """
        given = _checked(cls, content)
        if given["measured"] is not None:
            given["measured"] = Measured.from_dict(given["measured"])
        for name in ("mismatch", "runs"):
            given[name] = tuple(given.get(name, ()))
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class TableResult:
    """A whole table.

    Attributes:
        name: Name of the table's file, for example ``edm/table2``.
        title: Its title.
        source: The publication.
        metric: Name of the metric the publication reports, for example ``fid``.
        protocol: The published protocol as the table's file states it.
        budget: Name of the budget it was measured with.
        rows: Its rows in the order of the publication.
        hardware: What it was measured on.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins for JSON."""
        return _described(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The table that ``to_dict`` described.

        Raises:
            ValueError: If a field is missing or unknown.
        """
        given = _checked(cls, content)
        given["rows"] = tuple(RowResult.from_dict(row) for row in given["rows"])
        for name in ("protocol", "versions"):
            given[name] = dict(given[name])
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class ClaimResult:
    """What became of a published claim.

    Attributes:
        name: Name of the claim's file, for example ``rfpp/reflow_straightens``.
        title: The claimed effect, one sentence.
        source: Where it is claimed.
        published: The published figures, as text.
        arms: What was compared; the last is claimed to be better than the others.
        direction: Whether ``lower`` or ``higher`` is better.
        verdict: What the stated test says; ``missing`` while arms are.
        test: The test, in words.
        statistic: Its statistic; nan while arms are missing.
        p_value: Its p value in the claimed direction; nan while arms are missing.
        budget: Name of the budget it was measured with.
        hardware: What it was measured on.
    """

    name: str
    title: str
    source: str
    published: str
    arms: tuple[RowResult, ...]
    direction: Literal["lower", "higher"]
    verdict: Literal["holds", "does not hold", "undecided", "missing"]
    test: str
    statistic: float
    p_value: float
    budget: str
    hardware: str

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins for JSON."""
        return _described(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The claim that ``to_dict`` described.

        Raises:
            ValueError: If a field is missing or unknown.
        """
        given = _checked(cls, content)
        given["arms"] = tuple(RowResult.from_dict(arm) for arm in given["arms"])
        for name in ("statistic", "p_value"):
            given[name] = _number(given[name])
        return cls(**given)


def _described(result: "Measured | RowResult | TableResult | ClaimResult") -> dict[str, Any]:
    return {part.name: _plain(getattr(result, part.name)) for part in fields(result)}


def _plain(value: Any) -> Any:  # noqa: ANN401 -- any value of these classes
    """Builtins for JSON, which has neither nan (null here) nor infinity (a word here)."""
    if isinstance(value, Measured | RowResult | TableResult | ClaimResult):
        return _described(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _number(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def _checked(
    cls: "type[Measured | RowResult | TableResult | ClaimResult]", content: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of a stored result; an incomplete or foreign one is refused by name."""
    names = {part.name for part in fields(cls)}
    missing, unknown = names - {"runs"} - set(content), set(content) - names
    if missing or unknown:
        raise ValueError(
            f"not a {cls.__name__}: missing {sorted(missing)}, unknown {sorted(unknown)}"
        )
    return dict(content)
