"""Planning a table or claim: its rows with their jobs, and how they are scored."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowexp.errors import UsageError
from flowexp.tables.budgets import Budget
from flowexp.tables.graph import Planner
from flowexp.tables.planned_rows import Circumstances, PlannedRow, Scoring
from flowexp.tables.results import ClaimResult, TableResult
from flowexp.tables.syntax import ClaimFile, TableFile

__all__ = ["Circumstances", "Plan", "plan_claim", "plan_table"]

# From the cheapest on; a claim names the smallest that pays for it.
_BUDGETS = ("cpu", "small", "gpu_hour", "full")
_DEFAULT_SAMPLES = 50_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A table or claim with its planned rows; no rows if the budget does not pay for it.

    Attributes:
        file: The file.
        rows: All its rows.
        scoring: How they are scored.
        only: Text in the labels of the wanted rows, or a pattern with ``*``; None = all rows.
    """

    file: TableFile | ClaimFile
    rows: tuple[PlannedRow, ...]
    scoring: Scoring
    only: str | None = None

    @property
    def wanted(self) -> tuple[PlannedRow, ...]:
        """The rows whose jobs are to be run; the others are shown as they are."""
        return self.rows if self.only is None else _matching(self.rows, self.only)

    def result(self, *, budget: str) -> TableResult | ClaimResult:
        """The result so far."""
        from flowexp.tables.collect import claim_result, table_result

        if isinstance(self.file, ClaimFile):
            return claim_result(self.file, self.rows, budget=budget)
        return table_result(self.file, self.rows, scoring=self.scoring, budget=budget)


def plan_table(
    table: TableFile, given: Circumstances, *, node: Mapping[str, Any], only: str | None = None
) -> Plan:
    """Plan a table and check all its commands.

    Raises:
        UsageError: No row is wanted, or a command is not sound; each is named with its row.
    """
    budget = Budget.of(given.budget, node, seeds=given.seeds)
    published = table.protocol.get("num_samples") or _DEFAULT_SAMPLES
    repetitions = table.protocol.get("repetitions") or 1
    metric = budget.metric.get(table.metric, table.metric)
    samples, repeats = budget.num_samples or published, budget.repeats or repetitions
    scoring = Scoring(
        metric=metric,
        num_samples=samples,
        repeats=repeats,
        scaled=(metric, samples, repeats) != (table.metric, published, repetitions),
    )
    rows = Planner(table.name, table.jobs, scoring, budget, given).rows(table.rows)
    return Plan(file=table, rows=rows, scoring=scoring, only=only)


def plan_claim(claim: ClaimFile, given: Circumstances) -> Plan:
    """Plan a claim and check all its commands.

    Its experiments have the size that shows the effect; a budget only says whether it pays.

    Raises:
        UsageError: A command is not sound; each is named with its arm.
    """
    scoring = Scoring(metric=claim.metric, num_samples=claim.num_samples)
    if _too_dear(claim.budget, given.budget):
        return Plan(file=claim, rows=(), scoring=scoring)
    budget = Budget(name=given.budget, seeds=tuple(given.seeds or claim.seeds))
    rows = Planner(claim.name, claim.jobs, scoring, budget, given).rows(claim.arms)
    return Plan(file=claim, rows=rows, scoring=scoring)


def _too_dear(needed: str, given: str) -> bool:
    known = needed in _BUDGETS and given in _BUDGETS
    return known and _BUDGETS.index(needed) > _BUDGETS.index(given)


def _matching(rows: Sequence[PlannedRow], only: str) -> tuple[PlannedRow, ...]:
    pattern = only if "*" in only else f"*{only}*"
    found = [row for row in rows if fnmatch.fnmatch(row.spec.label.lower(), pattern.lower())]
    if not found:
        labels = "; ".join(row.spec.label for row in rows)
        raise UsageError(f"no row is called {only!r}.", key="only", remedy=f"Rows: {labels}.")
    return tuple(found)
