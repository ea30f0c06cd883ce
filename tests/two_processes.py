"""A function in two processes, each with the variables that torchrun sets, without torchrun."""

import multiprocessing
import os
import socket
from collections.abc import Callable

from flowexp.tables.fork_server import MODULES

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([*MODULES])


def places_of_two() -> list[dict[str, str]]:
    """The variables of both processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}
    together |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": "0"}
    return [{**together, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]


def tasks_of_slurm() -> list[dict[str, str]]:
    """The variables of two tasks that srun started on this computer."""
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}
    job |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0"}
    return [{**job, "SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in ("0", "1")]


def in_two_processes(
    function: Callable[..., object],
    *arguments: object,
    places: Callable[[], list[dict[str, str]]] = places_of_two,
) -> None:
    """Call ``function(*arguments)`` in two processes and wait for both."""
    processes = [
        CONTEXT.Process(target=_called, args=(place, function, arguments)) for place in places()
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def _called(place: dict[str, str], function: Callable, arguments: tuple) -> None:
    import torch

    os.environ.update(place)
    torch.set_num_threads(1)
    function(*arguments)
