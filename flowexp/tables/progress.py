"""What the jobs of a table are doing, as one live view, or as plain lines where nobody watches."""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowexp.tables.jobs import TableJob

__all__ = ["JobState", "plain_lines", "state_of", "watching"]

_POLL_SECONDS = 0.5
_TAIL_BYTES = 4096
_SHOWN_RUNNING = 12


@dataclass(frozen=True)
class JobState:
    """What a job is doing.

    Attributes:
        status: ``done``, ``running``, ``failed`` or ``waiting``.
        kimg: Thousands of images a running training has seen, or None.
        of_kimg: Its length, or None.
    """

    status: str
    kimg: float | None = None
    of_kimg: float | None = None

    def progress(self) -> str:
        """``3.2/20 kimg``, or nothing."""
        if self.kimg is None or self.of_kimg is None:
            return ""
        return f"{self.kimg:.4g}/{self.of_kimg:g} kimg"


def state_of(job: TableJob, *, since: float = 0.0) -> JobState:
    """What a job is doing, by the files in its directory.

    Args:
        job: The job.
        since: Seconds of the epoch; what was noted before belongs to an earlier table, which may
            have been killed without noting it.
    """
    if job.is_done():
        return JobState("done")
    noted = _noted(job)
    if noted.get("since", 0.0) < since:
        return JobState("waiting")
    status = str(noted.get("status", "waiting"))
    if status == "running":
        length = (job.config.get("trainer") or {}).get("max_kimg")
        return JobState("running", _kimg(job.directory / "metrics.jsonl"), length)
    return JobState("failed" if status == "failed" else "waiting")


def _noted(job: TableJob) -> dict[str, Any]:
    try:
        content = json.loads(job.status_file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _kimg(file: Path) -> float | None:
    """``kimg`` of the last whole row."""
    try:
        with file.open("rb") as rows:
            rows.seek(max(0, file.stat().st_size - _TAIL_BYTES))
            lines = rows.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            return float(json.loads(line)["kimg"])
        except (ValueError, KeyError, TypeError):
            continue
    return None


@contextmanager
def watching(jobs: Sequence[TableJob], *, name: str) -> Iterator[None]:
    """Show what the jobs are doing while the context lasts."""
    stop = threading.Event()
    view = _LiveView(jobs, name) if sys.stdout.isatty() else _Lines(jobs)
    thread = threading.Thread(target=_poll, args=(view, jobs, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _poll(view: "_LiveView | _Lines", jobs: Sequence[TableJob], stop: threading.Event) -> None:
    started = time.time()
    with view:
        while True:
            last = stop.wait(_POLL_SECONDS)
            view.show([state_of(job, since=started) for job in jobs])
            if last:
                return


def plain_lines(
    jobs: Sequence[TableJob], before: Sequence[str], states: Sequence[JobState]
) -> Iterator[str]:
    """One line for each job whose status is another than before."""
    done = sum(state.status == "done" for state in states)
    for job, old, state in zip(jobs, before, states, strict=True):
        if state.status in (old, "waiting"):
            continue
        where = f"; see {job.log_file}" if state.status == "failed" else ""
        yield f"[{done}/{len(jobs)}] {state.status:<7} {job.title}{where}"


class _Lines:
    """For logs and pipes."""

    def __init__(self, jobs: Sequence[TableJob]) -> None:
        self._jobs = jobs
        self._before = [state_of(job, since=time.time()).status for job in jobs]

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, states: Sequence[JobState]) -> None:
        for line in plain_lines(self._jobs, self._before, states):
            print(line, flush=True)
        self._before = [state.status for state in states]


class _LiveView:
    """For a terminal: counts, and what is running."""

    def __init__(self, jobs: Sequence[TableJob], name: str) -> None:
        from rich.live import Live

        self._jobs = jobs
        self._name = name
        self._live = Live(auto_refresh=False)

    def __enter__(self) -> "_LiveView":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, states: Sequence[JobState]) -> None:
        from rich.table import Table
        from rich.text import Text

        counts = Counter(state.status for state in states)
        head = ", ".join(f"{counts[s]} {s}" for s in ("done", "running", "failed", "waiting"))
        table = Table.grid(padding=(0, 2))
        table.add_row(Text(self._name), Text(head))
        shown = [
            (job, state)
            for job, state in zip(self._jobs, states, strict=True)
            if state.status in ("running", "failed")
        ]
        for job, state in shown[:_SHOWN_RUNNING]:
            detail = str(job.log_file) if state.status == "failed" else state.progress()
            table.add_row(Text(f"  {state.status}"), Text(job.title), Text(detail))
        self._live.update(table, refresh=True)
