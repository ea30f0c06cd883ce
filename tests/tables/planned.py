"""Planning a table written for a test."""

from pathlib import Path

from flowexp.config.check import check
from flowexp.tables import plan as planning
from flowexp.tables.jobs import all_jobs
from flowexp.tables.plan import Circumstances, Plan
from flowexp.tables.table_files import read_claim, read_table
from tests.tables.files import write


def budget_node(name: str, *overrides: str):
    """The node of a budget, as the command line gives it."""
    checked = check("table_run", [f"budget={name}", *overrides])
    assert checked.problems == []
    return checked.config["budget"]


def plan(
    folder: Path, content, *, budget="full", changes=(), only=None, on_row=lambda: None, **given
) -> Plan:
    """The plan of a table with this content."""
    config_dir = str(write(folder, "mine/one", content))
    node = budget_node(budget, *changes)
    circumstances = Circumstances(
        budget=budget, node=node, root=folder / "jobs", config_dir=config_dir, **given
    )
    table = read_table("mine/one", config_dir=config_dir)
    return planning.plan(table, circumstances, only=only, on_row=on_row)


def planned_claim(folder: Path, content, **given) -> Plan:
    """The plan of a claim with this content."""
    config_dir = str(write(folder, "mine/one", content, kind="claim"))
    circumstances = Circumstances(
        budget="cpu", root=folder / "jobs", config_dir=config_dir, **given
    )
    return planning.plan(read_claim("mine/one", config_dir=config_dir), circumstances)


def by_title(one: Plan):
    """Every job by its title."""
    return {job.title: job for job in all_jobs(one.rows)}


def identities(one: Plan) -> list[str]:
    """The identities of the rows' evaluations, in order."""
    return [job.identity for row in one.rows for job in row.evaluations]
