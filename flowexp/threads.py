"""The number of CPU threads of a command: usable cores, the user's setting, a measurement.

PyTorch takes one thread per core. If other processes use these cores, every operation waits for the
thread that is not running, and two threads can be ten times slower than one. So ``auto`` measures.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["AUTO", "CROWDED", "SHARED_BY", "VARIABLES", "Measured", "crowd", "given_threads",
           "measure", "outlook", "restored", "shared_by", "usable_cores", "workers"]  # fmt: skip

AUTO = "auto"
SHARED_BY = "FLOWEXP_SHARED_BY"
"""Environment variable: the number of jobs that share the cores; see ``shared_by``."""

VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""Environment variables that the libraries behind PyTorch and NumPy read when loaded."""

_READ_BY_TORCH = VARIABLES[:2]
CROWDED = "One thread is often fastest then: leave threads=auto, or set 1."
"""Advice for a machine that other processes use."""

# Required speedup of more threads, since they take cores from other processes.
_WORTH = 1.1
# Numbers of threads this many times slower than the best in a first try are not timed further.
_HOPELESS = 3.0
_BUSY = 0.5


def usable_cores() -> int:
    """The number of cores this process may use, at least 1.

    It respects CPU affinity and container quotas; ``FLOWEXP_SHARED_BY`` jobs get equal shares.
    """
    from joblib import cpu_count

    cores, jobs = int(cpu_count()), _positive(os.environ.get(SHARED_BY, ""))
    if jobs is None:  # unset, or -1: one job per core
        jobs = cores if os.environ.get(SHARED_BY) else 1
    return max(1, cores // jobs)


@contextmanager
def shared_by(jobs: int | None) -> Iterator[None]:
    """Make this process one of ``jobs`` that share the cores; -1 = one job per core."""
    before = os.environ.get(SHARED_BY)
    if jobs is not None:
        os.environ[SHARED_BY] = str(jobs)
    try:
        yield
    finally:
        if before is not None:
            os.environ[SHARED_BY] = before
        elif jobs is not None:
            del os.environ[SHARED_BY]


def workers(most: int) -> int:
    """The number of threads that read and decode files: ``most``, or a job's share of the cores."""
    return min(most, usable_cores()) if SHARED_BY in os.environ else most


def given_threads() -> tuple[int, str] | None:
    """The number of threads set by an environment variable, and the name of the variable.

    The share of the cores that joblib sets for its workers does not count.
    """
    for name in _READ_BY_TORCH:
        number = _positive(os.environ.get(name, "").partition(",")[0])
        if number is not None:
            shared = SHARED_BY in os.environ and number == usable_cores()
            return None if shared else (number, name)
    return None


def _positive(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() and int(text) > 0 else None


def crowd() -> str | None:
    """The load of the machine in words if it exceeds half of the cores, else None."""
    try:
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
    except (AttributeError, OSError):  # Windows
        return None
    if load <= _BUSY * cores:
        return None
    return f"load {load:.1f} on {cores} core{'s' if cores > 1 else ''}"


def outlook(wanted: object = AUTO) -> str:
    """The number of threads, in words, that a command with ``threads=wanted`` would use."""
    cores, given = usable_cores(), given_threads()
    if isinstance(wanted, int):
        return f"{wanted} of {cores}, as given"
    if given is not None:
        return f"{given[0]} of {cores}, by {given[1]}"
    if wanted == AUTO and cores > 1:
        return f"1 to {cores}, the fastest in a short test at the start"
    return f"{cores} of {cores}"


@dataclass(frozen=True)
class Measured:
    """Speed by number of threads relative to one thread, on ``cores`` usable cores."""

    speeds: Mapping[int, float]
    cores: int

    @property
    def best(self) -> int:
        """The smallest number of threads that no other number beats by more than 10 %."""
        wanted = max(self.speeds.values()) / _WORTH
        return min(count for count, speed in self.speeds.items() if speed >= wanted)

    def __str__(self) -> str:
        """``1 of 2 (2 threads were 0.3 times as fast)``."""
        best = self.best
        other = max(self.speeds) if best == 1 else 1
        ratio = self.speeds[other] / self.speeds[best]
        name = "one thread was" if other == 1 else f"{other} threads were"
        return f"{best} of {self.cores} ({name} {ratio:.2g} times as fast)"


def measure(
    work: Callable[[], object], *, first: Callable[[], object], seconds: float = 0.25
) -> Measured:
    """Time a function with 1, 2, 4, ... threads of PyTorch, up to one per usable core.

    The numbers of threads take turns, so that a disturbance affects all of them.

    Args:
        work: The function to time, without side effects.
        first: A smaller version of it, to drop slow numbers of threads early.
        seconds: Time for each number of threads.
    """
    cores = usable_cores()
    counts = sorted({*(2**k for k in range(cores.bit_length())), cores})
    with restored():
        for count in counts:  # threads are started, memory is allocated
            _timed(first, count)
        tried = {count: _timed(first, count) for count in counts}
        speeds = {count: tried[1] / tried[count] for count in counts}
        counts = [count for count in counts if speeds[count] * _HOPELESS > max(speeds.values())]
        spent, turns = dict.fromkeys((1, *counts), 0.0), 0
        while turns == 0 or min(spent.values()) < seconds:
            turns += 1
            for count in spent:
                spent[count] += _timed(work, count)
    return Measured({**speeds, **{count: spent[1] / spent[count] for count in spent}}, cores)


def _timed(work: Callable[[], object], count: int) -> float:
    import torch

    torch.set_num_threads(count)
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def restored() -> Iterator[None]:
    """Restore PyTorch's number of threads when the context ends."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
