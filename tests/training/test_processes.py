"""Training in processes of its own: killed for good, and shared by two."""

import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback, Trainer

from flowexp.processes import Processes
from flowexp.runs import read_checkpoint
from flowexp.training.module import FlowModule
from tests.training.test_fit import assert_same_state, rows
from tests.training.tiny import tiny_model, tiny_settings, train
from tests.two_processes import CONTEXT, in_two_processes, places_of_two, tasks_of_slurm


class Slow(Callback):
    """Reports every step and waits a little, so that a kill hits different places."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def on_train_batch_end(self, trainer: Trainer, pl_module: FlowModule, *_: object) -> None:
        self.pipe.send(pl_module.step)
        time.sleep(0.003)


def train_slowly(folder: Path, pipe: Connection) -> None:
    torch.set_num_threads(1)
    train(folder, settings=tiny_settings(max_kimg=0.64), callbacks={"slow": Slow(pipe)})


@pytest.mark.slow
def test_kills_change_nothing(tmp_path: Path) -> None:
    """SIGKILL in the steps after 3, 17, 29 and 30, and then to the end."""
    for last in (3, 17, 29, 30, 40):
        receiver, sender = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=train_slowly, args=(tmp_path / "killed", sender))
        process.start()
        sender.close()
        while receiver.recv() != last:
            pass
        if last < 40:
            process.kill()
        process.join()
        assert process.exitcode == (-9 if last < 40 else 0)
    train(tmp_path / "uninterrupted", settings=tiny_settings(max_kimg=0.64))
    assert_same_state(tmp_path / "uninterrupted", tmp_path / "killed")
    assert rows(tmp_path / "uninterrupted") == rows(tmp_path / "killed")


def train_shared(folder: Path) -> None:
    with Processes.start() as processes:
        assert processes.gather(processes.rank) == ([0, 1] if processes.is_first else None)
    settings = tiny_settings(devices=2, strategy="ddp", micro_batch=5)
    train(folder, model=tiny_model(dropout=0.0), settings=settings)


@pytest.mark.slow
@pytest.mark.parametrize("places", [places_of_two, tasks_of_slurm])
def test_two_processes_train_as_one(places: Callable, tmp_path: Path) -> None:
    """Same draws and a shared batch: only the order of additions differs (no dropout)."""
    in_two_processes(train_shared, tmp_path / "two", places=places)
    train(tmp_path / "one", model=tiny_model(dropout=0.0))
    files = [tmp_path / name / "checkpoints" / "last.ckpt" for name in ("one", "two")]
    one, two = map(read_checkpoint, files)
    assert two["step"] == one["step"] == 20
    for name, tensor in one["ema"]["main"].items():
        torch.testing.assert_close(two["ema"]["main"][name], tensor, rtol=1e-4, atol=1e-5)
    for a, b in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert a == pytest.approx(b, rel=1e-5)
