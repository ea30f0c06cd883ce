"""A dry run of ``flowexp table``: its commands, what is done, and how long the rest will take."""

import shlex
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowexp.config.launcher import jobs_at_once
from flowexp.errors import UsageError

if TYPE_CHECKING:
    from flowexp.tables.estimate import Estimate
    from flowexp.tables.jobs import TableJob

__all__ = ["COMMANDS", "require_known", "show_jobs"]

COMMANDS = "commands"
"""The dry run that only checks and shows."""

_LINE_SECONDS = 10.0


def require_known(dry: object) -> None:
    """Refuse another value of ``dry``."""
    if dry not in (True, False, COMMANDS):
        raise UsageError(
            f"{dry!r} is no kind of dry run.",
            key="dry",
            remedy=f"Use dry=true (with an estimate of time), or dry={COMMANDS} (at once).",
        )


def show_jobs(jobs: "Sequence[TableJob]", config: Mapping[str, Any]) -> None:
    """Print the jobs, which are done, and unless ``dry=commands`` how long the others take."""
    from flowexp.tables.progress import state_of

    at_once = jobs_at_once(config) or 1
    estimates = {} if config["dry"] == COMMANDS else _estimates(jobs, at_once)
    for job in jobs:
        status = "done" if job.is_done() else "to run"
        if state_of(job).status == "failed":
            status = "failed"
        print(f"{status:<7} {job.directory}  {job.title}")
        if job.identity in estimates:
            print(f"        {estimates[job.identity]}")
        print(f"        flowexp {shlex.join(job.arguments())}")
    done = sum(job.is_done() for job in jobs)
    print(f"{len(jobs)} jobs, {done} done. Nothing was run (dry={str(config['dry']).lower()}).")
    if estimates:
        print("\n".join(_in_all(list(estimates.values()), at_once)))


def _estimates(jobs: "Sequence[TableJob]", at_once: int) -> "dict[str, Estimate]":
    from flowexp.tables.estimate import duration, estimated
    from flowexp.threads import shared_by

    started = said = time.monotonic()

    def say(done: int, of: int) -> None:
        nonlocal said
        now = time.monotonic()
        if done and now - said >= _LINE_SECONDS:
            said, left = now, duration((now - started) / done * (of - done))
            print(f"timing short trials: {done} of {of}, about {left} left", flush=True)

    with shared_by(at_once if at_once > 1 else None):
        return estimated(jobs, on_trials=say)


def _in_all(estimates: "Sequence[Estimate]", at_once: int) -> list[str]:
    """The sum, and what it assumes."""
    from flowexp.tables.estimate import duration
    from flowexp.tables.probes import STEPS
    from flowexp.threads import crowd

    known = [one for one in estimates if one.seconds is not None]
    where = " or ".join(sorted({one.where for one in known}))
    total = sum(one.seconds or 0.0 for one in known) / at_once
    missing = len(estimates) - len(known)
    rest = f", and {missing} jobs that are not estimated" if missing else ""
    many = "one job at a time" if at_once == 1 else f"{at_once} jobs at once"
    lines = [
        f"about {duration(total)} for {len(known)} jobs{rest}: {many}"
        + (f", on {where}." if where else "."),
        f"From {STEPS} steps of each distinct training and some calls of each network; sample "
        "grids and\nreading data are left out.",
    ]
    crowded = crowd()
    return [*lines, f"The machine is busy ({crowded}); alone it is faster."] if crowded else lines
