"""Which processes share the work, and which of them this is.

Every rank and number of processes is read here, from what starters set in the environment:

=================  =============================================================
torchrun           RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT
Lightning (ddp)    NODE_RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT
srun               SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID, SLURM_NODEID
jsrun              JSM_NAMESPACE_RANK, _SIZE, _LOCAL_RANK; with MASTER_ADDR, MASTER_PORT
mpirun, mpiexec    OMPI_COMM_WORLD_RANK ..., MV2_COMM_WORLD_RANK ..., PMI_RANK ...; with the same
=================  =============================================================

Such variables also reach processes that nobody shares anything with: an interactive shell of SLURM
has SLURM_NTASKS of its allocation, a container what its image or its pod set. They count only where
they agree with what is configured; what contradicts it is refused, since several processes that
each count as alone would train one run in one folder, and one that counts as the second of two
would write nothing.
"""

import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from flowexp.errors import UsageError

__all__ = ["STOP_SIGNALS", "Place", "Processes", "accelerator_of_rank", "in_turn",
           "is_first_process", "several_started", "training_place"]  # fmt: skip

STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)
"""From a keyboard, a shutdown, a closed terminal, and from schedulers before the time is over."""

_Item = TypeVar("_Item")

# Who starts processes, and the names of rank, number of processes, rank on the node and node.
_STARTERS = (
    ("jsrun", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_LOCAL_RANK", ""),
    ("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", ""),
    ("mpirun", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK", ""),
    ("mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", ""),
    # Last: in a script of sbatch, the processes of mpirun have the variables of the script.
    ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID"),
)
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
_FIRST_PORT = 15000
_PORTS = 10000


@dataclass(frozen=True)
class Place:
    """A process's place among those that share the work.

    Attributes:
        rank: 0 to ``world_size`` - 1; the first writes and reports.
        local_rank: The same on its node.
        node: Number of the node.
        address: Where the first process listens, with ``port``; None = not yet known.
        started: Whether all processes have been started; else the first is to start the others.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    node: int = 0
    address: str | None = None
    port: int | None = None
    started: bool = False


@dataclass(frozen=True)
class _Started:
    """What the environment says: this process is number ``rank`` of ``count`` that ``by`` started.

    ``count`` is 0 where it is not said; ``missing`` are variables without which the others cannot
    be found. Variables of an allocation need not mean that processes were started in it: they are
    not ``certain``. Lightning says no rank, but ``node`` and ``local_rank``.
    """

    by: str
    rank: int | None
    count: int
    local_rank: int | None
    node: int
    said: str
    missing: tuple[str, ...] = ()
    certain: bool = True

    @property
    def is_first(self) -> bool:
        return not (self.node or self.local_rank) if self.rank is None else self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self.is_first and self.count <= 1

    def place(self, *, per_node: int) -> Place:
        """The place among ``count`` processes, ``per_node`` of them on every node."""
        local, rank = self.local_rank, self.rank
        if rank is None:
            rank = self.node * per_node + (local or 0)
        if local is None:
            local = rank % per_node
        if rank >= self.count:
            raise UsageError(
                f"{self.said} is not one of {self.count} processes.",
                remedy="Start all processes with one torchrun or srun command.",
            )
        address, port = _meeting()
        return Place(rank, self.count, local, self.node, address, port, started=True)

    def refuse_incomplete(self) -> None:
        """Raise a :class:`UsageError` if the others cannot be found."""
        if self.missing and not self.alone:
            verb = "is" if len(self.missing) == 1 else "are"
            raise UsageError(
                f"{self.said} says that several processes were started, but "
                f"{', '.join(self.missing)} {verb} not set.",
                remedy="Start them with torchrun or srun, which set all of it, or unset "
                f"{self.variable} if this process is alone.",
            )

    @property
    def variable(self) -> str:
        """The name of what says it."""
        return self.said.partition("=")[0]


def _number(name: str) -> int | None:
    """An environment variable as a number >= 0; None where it is not set, or empty."""
    text = os.environ.get(name, "").strip()
    if not text:
        os.environ.pop(name, None)  # Lightning would read a number
        return None
    if not text.isdecimal():
        raise UsageError(
            f"the environment variable {name} is {text!r}, which is no number of a process.",
            remedy=f"Unset {name}.",
        )
    return int(text)


def _started() -> _Started | None:
    """What the environment says of this process; None if nothing."""
    rank, count, local, node = map(_number, ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK"))
    if rank is not None or local is not None or node:
        known = {"RANK": rank, "LOCAL_RANK": local, "NODE_RANK": node}
        said = next((f"{k}={v}" for k, v in known.items() if v), f"WORLD_SIZE={count}")
        needed = {"WORLD_SIZE": count} | {name: os.environ.get(name) for name in _MEETING}
        missing = tuple(name for name, value in needed.items() if not value)
        if rank is not None:
            node = _number("GROUP_RANK") if node is None else node
        return _Started("torchrun", rank, count or 0, local, node or 0, said, missing)
    for by, of_rank, of_count, of_local, of_node in _STARTERS:
        own = _number(of_rank)
        if own is None:
            continue
        number, tasks = _number(of_count), _number("SLURM_NTASKS") if by == "srun" else None
        needed = {of_count: number, **dict(zip(_MEETING, _meeting(), strict=True))}
        return _Started(
            by,
            own,
            number or tasks or 0,
            _number(of_local),
            (of_node and _number(of_node)) or 0,
            f"{of_rank}={own}",
            tuple(name for name, value in needed.items() if value is None),
            certain=own > 0 or number is not None,
        )
    if count is not None and count > 1:
        return _Started("torchrun", 0, count, None, 0, f"WORLD_SIZE={count}", ("RANK",))
    return None


def _meeting() -> tuple[str | None, int | None]:
    """Where the first process listens, as far as the environment says it."""
    address, port = os.environ.get(_MEETING[0]), _number(_MEETING[1])
    if "SLURM_PROCID" in os.environ:
        lists = (os.environ.get(f"SLURM_{kind}NODELIST") for kind in ("STEP_", "JOB_", ""))
        nodes = next(filter(None, lists), "127.0.0.1")
        # The first of n1,n2 or of n[3-5,7].
        address = address or re.sub(r"\[([^],-]+).*", r"\1", nodes.split(",")[0])
        job = re.search(r"\d+", os.environ.get("SLURM_JOB_ID", "")) or [0]
        if port is None:
            port = _FIRST_PORT + (int(job[0]) + (_number("SLURM_STEP_ID") or 0)) % _PORTS
    return address, port


def several_started() -> str | None:
    """How many processes this one was started with, in words; None if it is alone."""
    started = _started()
    if started is None or started.alone or not started.certain:
        return None
    return f"{started.count} processes" if started.count else f"several processes ({started.said})"


def is_first_process() -> bool:
    """Whether this process is the one that writes, by what the environment says."""
    started = _started()
    return started is None or started.is_first


def training_place(*, devices: int, nodes: int = 1) -> Place:
    """This process's place in a training on ``devices`` of each of ``nodes``.

    Raises:
        UsageError: Another number of processes was started, or not all that it takes to find the
            others is known.
    """
    started, count = _started(), devices * nodes
    if started is None or (started.count in (0, 1) and started.is_first):
        return Place(world_size=count)
    if started.count == count:
        if started.by != "srun":
            started.refuse_incomplete()
        return started.place(per_node=devices)
    if not started.certain:
        return Place(world_size=count)
    if nodes > 1 and started.count == 0 and started.rank is None and not started.local_rank:
        # One command a node, started by hand with NODE_RANK; each starts the others of its node.
        if started.node < nodes:
            return Place(started.node * devices, count, 0, started.node)
    if started.by != "srun":
        started.refuse_incomplete()
    raise UsageError(
        f"{started.by} started {started.count} processes ({started.said}) for a training on "
        f"{count} device{'s' if count > 1 else ''}: each would train the same run in the same "
        "folder.",
        key="trainer.devices",
        remedy=f"Start one process, unset {started.variable} if this is the only one, or give the "
        f"training as many devices: trainer.devices={started.count} trainer.strategy=ddp.",
    )


def in_turn(shares: Sequence[Sequence[_Item]]) -> list[_Item]:
    """The items that n processes shared, every n-th to each, in their order again."""
    turns = max(map(len, shares), default=0)
    return [share[i] for i in range(turns) for share in shares if i < len(share)]


def accelerator_of_rank(count: int) -> int:
    """The number of this process's accelerator among ``count``: processes take them in turn."""
    started = _started()
    return 0 if started is None or started.alone else (started.local_rank or 0) % count


class Processes:
    """This process's place among those that share the work; alone unless started otherwise.

    They exchange small states on the CPU, so the group is always gloo, on every device.
    """

    def __init__(self, *, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; allowed: 0 to {world_size - 1}")
        self.rank = rank
        self.world_size = world_size
        self._owns_group = False

    @classmethod
    def start(cls) -> Self:
        """The processes that torchrun or srun has started; joins their group.

        Raises:
            UsageError: The environment says that there are others, but not how to find them.
        """
        import torch

        started = _started()
        if started is None or started.alone or not started.certain:
            return cls()
        started.refuse_incomplete()
        place = started.place(per_node=started.count)
        processes = cls(rank=place.rank, world_size=place.world_size)
        if not torch.distributed.is_initialized():
            # At torchrun's address torchrun itself listens already.
            torchrun = started.by == "torchrun"
            torch.distributed.init_process_group(
                "gloo",
                init_method="env://" if torchrun else f"tcp://{place.address}:{place.port}",
                rank=place.rank,
                world_size=place.world_size,
            )
            processes._owns_group = True
        return processes

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def share(self, items: Sequence[_Item]) -> list[_Item]:
        """This process's items: every ``world_size``-th."""
        return list(items[self.rank :: self.world_size])

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world_size > 1:
            import torch

            torch.distributed.barrier()

    def gather(self, item: _Item) -> list[_Item] | None:
        """The items of all processes in the order of their ranks, on the first; None elsewhere."""
        if self.world_size == 1:
            return [item]
        import torch

        gathered: list[Any] | None = [None] * self.world_size if self.is_first else None
        torch.distributed.gather_object(item, gathered)
        return gathered

    def of_first(self, item: _Item) -> _Item:
        """The first process's item, on all of them; every process must call this."""
        if self.world_size == 1:
            return item
        import torch

        items = [item]
        torch.distributed.broadcast_object_list(items)
        return items[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the group, if :meth:`start` joined it."""
        if self._owns_group:
            import torch

            torch.distributed.destroy_process_group()
            self._owns_group = False
