"""A dry run of ``flowexp table``: commands, finished jobs, and an estimate for the others."""

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
"""The value of ``dry`` that lists the jobs without an estimate."""

_LINE_SECONDS = 10.0


def require_known(dry: object) -> None:
    """Refuse an unknown value of ``dry``."""
    if dry not in (True, False, COMMANDS):
        raise UsageError(
            f"unknown value {dry!r}.",
            key="dry",
            remedy=f"Use dry=true to list the jobs and estimate their time, or dry={COMMANDS} to "
            "list them only.",
        )


def show_jobs(jobs: "Sequence[TableJob]", config: Mapping[str, Any]) -> None:
    """Print the jobs and their states and, unless ``dry=commands``, an estimate of their time."""
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
            print(f"short trials: {done} of {of} timed, about {left} left", flush=True)

    with shared_by(at_once if at_once > 1 else None):
        return estimated(jobs, on_trials=say)


def _in_all(estimates: "Sequence[Estimate]", at_once: int) -> list[str]:
    """The total time and its assumptions."""
    from flowexp.tables.estimate import duration
    from flowexp.tables.probes import STEPS
    from flowexp.threads import crowd

    known = [one for one in estimates if one.seconds is not None]
    where = " or ".join(sorted({one.where for one in known}))
    total = sum(one.seconds or 0.0 for one in known) / at_once
    missing = len(estimates) - len(known)
    rest = f", without {missing} jobs that have no estimate" if missing else ""
    many = "one job at a time" if at_once == 1 else f"{at_once} jobs at once"
    lines = [
        f"about {duration(total)} for {len(known)} jobs{rest}: {many}"
        + (f", on {where}." if where else "."),
        f"Estimated from {STEPS} steps of each distinct training and a few calls of each network,\n"
        "without sample grids and reading of data.",
    ]
    crowded = crowd()
    busy = f"The machine is busy ({crowded}); an idle one is faster."
    return [*lines, busy] if crowded else lines
