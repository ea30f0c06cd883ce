"""The states of a table's jobs, as a live view in a terminal and as plain lines elsewhere."""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowexp.progress import Task
from flowexp.progress.task import duration, running
from flowexp.tables.jobs import TableJob

__all__ = ["JobState", "plain_lines", "state_of", "watching"]

_POLL_SECONDS = 0.5
_TAIL_BYTES = 4096
_SHOWN_RUNNING = 12


@dataclass(frozen=True)
class JobState:
    """The state of a job.

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
    """The state of a job, by the files in its directory.

    Notes written before ``since`` (seconds of the epoch) are those of an earlier table, which may
    have been killed.
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
        content = json.loads(job.status_file.read_text(encoding="utf-8"))
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


Show = Callable[[Sequence[JobState]], None]


class Pace:
    """The pace of the jobs, from successive states, for each verb by itself.

    The time that a verb's job takes is the time in which its jobs ran here, over the fractions of
    them that were done in it. So a training counts while it runs, by its images, another job once
    it is done, and a failed one never. The time left is that of all jobs over the mean number that
    ran at once.

    Args:
        verbs: The verb of each job.
        clock: Seconds.
    """

    def __init__(
        self, verbs: Sequence[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._verbs = verbs
        self._last: tuple[float, Sequence[JobState]] | None = None
        self._ran = [0.0] * len(verbs)
        self._gained = [0.0] * len(verbs)
        self._busy = 0.0

    def words(self, states: Sequence[JobState]) -> str:
        """``12 of 40 jobs done, 2 running, about 1:20:00 left without eval``."""
        self._note(states)
        counts = Counter(state.status for state in states)
        parts = [f"{counts['done']} of {len(states)} jobs done"]
        parts += [
            f"{counts[status]} {status}" for status in ("running", "failed") if counts[status]
        ]
        known = self._seconds(states)
        ahead = {verb: 0.0 for verb in self._verbs}
        for number, (verb, state) in enumerate(zip(self._verbs, states, strict=True)):
            if state.status not in ("done", "failed"):
                ahead[verb] += self._ahead(number, state, known.get(verb))
        left = sum(known[verb] * count for verb, count in ahead.items() if verb in known)
        if left > 0.0:
            unknown = [verb for verb, count in ahead.items() if count > 0.0 and verb not in known]
            without = f" without {', '.join(unknown)}" if unknown else ""
            at_once = sum(self._ran) / self._busy
            parts.append(f"about {duration(left / at_once)} left{without}")
        return ", ".join(parts)

    def _note(self, states: Sequence[JobState]) -> None:
        """Add what happened since the last states."""
        now = self._clock()
        then, before = self._last or (now, states)
        self._last = now, list(states)
        self._busy += (now - then) * any(state.status == "running" for state in before)
        for number, (old, new) in enumerate(zip(before, states, strict=True)):
            if old.status == "running":
                self._ran[number] += now - then
                self._gained[number] += max(0.0, _share_done(new) - _share_done(old))

    def _seconds(self, states: Sequence[JobState]) -> dict[str, float]:
        """The seconds of a job, for the verbs of which something is done."""
        sums: dict[str, tuple[float, float]] = {}
        for number, (verb, state) in enumerate(zip(self._verbs, states, strict=True)):
            if state.status != "failed" and self._gained[number] > 0.0:
                ran, gained = sums.get(verb, (0.0, 0.0))
                sums[verb] = ran + self._ran[number], gained + self._gained[number]
        return {verb: ran / gained for verb, (ran, gained) in sums.items()}

    def _ahead(self, number: int, state: JobState, seconds: float | None) -> float:
        """The fraction of an unfinished job that is still to do."""
        if state.status == "running" and state.of_kimg is None and seconds:
            return max(0.0, 1.0 - self._ran[number] / seconds)
        return 1.0 - _share_done(state)


def _share_done(state: JobState) -> float:
    if state.status == "running" and state.kimg is not None and state.of_kimg:
        return min(1.0, state.kimg / state.of_kimg)
    return float(state.status in ("done", "failed"))


@contextmanager
def watching(jobs: Sequence[TableJob], *, name: str) -> Iterator[None]:
    """Show the states of the jobs while the context lasts."""
    stop = threading.Event()
    pace = Pace([job.verb for job in jobs])
    with _live_view(jobs, name, pace) if sys.stdout.isatty() else _lines(jobs, pace) as show:
        thread = threading.Thread(target=_poll, args=(show, jobs, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _poll(show: Show, jobs: Sequence[TableJob], stop: threading.Event) -> None:
    started, last = time.time(), False
    while not last:
        last = stop.wait(_POLL_SECONDS)
        show([state_of(job, since=started) for job in jobs])


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


@contextmanager
def _lines(jobs: Sequence[TableJob], pace: Pace) -> Iterator[Show]:
    """For logs and pipes: a line for each change, and an occasional summary."""
    before = [state_of(job, since=time.time()).status for job in jobs]
    words = ""

    def show(states: Sequence[JobState]) -> None:
        nonlocal words
        for line in plain_lines(jobs, before, states):
            print(line, flush=True)
        before[:] = [state.status for state in states]
        words = pace.words(states)
        task.reach(sum(map(_share_done, states)))

    with running(Task("", total=len(jobs), text=lambda: words)) as task:
        yield show


@contextmanager
def _live_view(jobs: Sequence[TableJob], name: str, pace: Pace) -> Iterator[Show]:
    """For a terminal: counts, remaining time, and the running and failed jobs."""
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    def show(states: Sequence[JobState]) -> None:
        table = Table.grid(padding=(0, 2))
        table.add_row(Text(name), Text(pace.words(states)))
        pairs = zip(jobs, states, strict=True)
        shown = [(job, state) for job, state in pairs if state.status in ("running", "failed")]
        for job, state in shown[:_SHOWN_RUNNING]:
            detail = str(job.log_file) if state.status == "failed" else state.progress()
            table.add_row(Text(f"  {state.status}"), Text(job.title), Text(detail))
        live.update(table, refresh=True)

    with Live(auto_refresh=False) as live:
        yield show
