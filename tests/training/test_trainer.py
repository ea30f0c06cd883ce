"""What Lightning would do by itself on a cluster does not happen behind a training."""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lightning_fabric.plugins.environments import SLURMEnvironment
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import OnExceptionCheckpoint

from flowexp.errors import StoppedError, UsageError
from flowexp.files import write_text
from flowexp.runs import RunDirectory, read_checkpoint
from flowexp.training import TrainingInterrupted
from flowexp.training.callbacks import stop_signals
from flowexp.training.module import FlowModule
from tests.training.test_fit import assert_same_state, rows
from tests.training.tiny import tiny_settings, train

# A shell within an allocation of four tasks.
SLURM = {
    "SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "4", "SLURM_PROCID": "0",
    "SLURM_NTASKS_PER_NODE": "4", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
}  # fmt: skip


class At(Callback):
    """Does something after a step."""

    def __init__(self, step: int, do) -> None:
        self.step, self.do = step, do

    def on_train_batch_end(self, trainer: Trainer, pl_module: FlowModule, *_: object) -> None:
        if pl_module.step == self.step:
            self.do(trainer)


def send(*numbers: int):
    return lambda trainer: [signal.raise_signal(number) for number in numbers]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    train(folder)
    return folder


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def usr1() -> Iterator[list[int]]:
    """A handler of another's, as submitit has, which returns: what it was called with."""
    calls: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: calls.append(number))
    yield calls
    signal.signal(signal.SIGUSR1, before)


def test_an_allocation_changes_nothing(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: None
) -> None:
    def detected(*_: object) -> bool:
        raise AssertionError("Lightning looked for SLURM")

    monkeypatch.setattr(SLURMEnvironment, "detect", staticmethod(detected))
    monkeypatch.setattr(rank_zero_only, "rank", 3)
    monkeypatch.setenv("PL_TRAINER_MAX_STEPS", "2")
    monkeypatch.setenv("PL_TRAINER_ACCUMULATE_GRAD_BATCHES", "4")
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    run = RunDirectory(tmp_path / "run")
    torch.save({"state_dict": {}, "global_step": 7}, write_text(run.path / "hpc_ckpt_3.ckpt", ""))
    torch.save({"state_dict": {}}, write_text(run.path / "on_exception.ckpt", ""))
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    seen: list[object] = []

    def look(trainer: Trainer) -> None:
        seen.extend([trainer.received_sigterm, rank_zero_only.rank, trainer.ckpt_path])

    theirs = {"look": At(3, look), "theirs": OnExceptionCheckpoint(str(run.path))}
    train(run.path, callbacks=theirs)
    assert seen == [False, 0, None]
    assert rows(run.path) == rows(uninterrupted)
    stored = read_checkpoint(run.checkpoints / "last.ckpt")
    whole = read_checkpoint(uninterrupted / "checkpoints" / "last.ckpt")
    assert all(torch.equal(stored["network"][k], v) for k, v in whole["network"].items())
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    names = {"checkpoints", "config.yaml", "hpc_ckpt_3.ckpt", "manifest.json", "metrics.jsonl",
             "overrides.yaml", "samples"}  # fmt: skip
    assert {file.name for file in run.path.iterdir()} == names


def test_a_task_among_others_does_not_train_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: None
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "2")
    with pytest.raises(UsageError, match=r"srun started 4 processes .* for a training on 1 device"):
        train(tmp_path / "run")
    with pytest.raises(UsageError, match="for a training on 2 devices"):
        train(tmp_path / "run", settings=tiny_settings(devices="0,1", strategy="ddp"))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_every_signal_that_stops_saves_first(
    name: str, uninterrupted: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(TrainingInterrupted, match=f"stopped by {name} at step 7"):
        # what a table and a scheduler add to it is no further request
        train(tmp_path / "run", callbacks={"at": At(7, send(number, signal.SIGTERM))})
    assert f"flowexp: {name}: saving a checkpoint; press Ctrl-C again" in capfd.readouterr().err
    assert signal.getsignal(number) == before
    train(tmp_path / "run")
    assert_same_state(uninterrupted, tmp_path / "run")


@pytest.mark.parametrize(
    ("first", "step", "there"),
    [
        (signal.SIGINT, 7, r"It continues from last\.ckpt with flowexp train run="),
        (signal.SIGTERM, 2, "holds no checkpoint yet, so it would start anew"),
    ],
)
def test_ctrl_c_during_a_stop_stops_at_once(
    first: int, step: int, there: str, uninterrupted: Path, tmp_path: Path, capfd
) -> None:
    at = At(step, send(first, signal.SIGINT))
    with pytest.raises(TrainingInterrupted, match=rf"at once by a further SIGINT. .*{there}"):
        train(tmp_path / "run", callbacks={"at": at})
    assert "SIGINT: stopping at once" in capfd.readouterr().err
    train(tmp_path / "run")
    assert_same_state(uninterrupted, tmp_path / "run")


def test_what_torchrun_passes_on_is_the_same_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop_signals, "several_started", lambda: "2 processes")
    at = At(7, send(signal.SIGINT, signal.SIGINT))
    with pytest.raises(TrainingInterrupted, match="stopped by SIGINT at step 7"):
        train(tmp_path / "run", callbacks={"at": at})


def test_nohup_stays_in_force(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert train(tmp_path / "run", callbacks={"at": At(7, send(signal.SIGHUP))}).step == 20
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_of_anothers_is_called_after_a_checkpoint(
    uninterrupted: Path, tmp_path: Path, usr1: list[int]
) -> None:
    saved: list[str] = []
    checkpoints = tmp_path / "run" / "checkpoints"
    callbacks = {
        "send": At(6, send(signal.SIGUSR1)),
        "look": At(7, lambda trainer: saved.extend(sorted(f.name for f in checkpoints.iterdir()))),
    }
    train(tmp_path / "run", callbacks=callbacks)
    assert usr1 == [signal.SIGUSR1]
    assert saved == ["last.ckpt", "step-000000006.ckpt"]
    assert rows(tmp_path / "run") == rows(uninterrupted)


@pytest.mark.parametrize(("size", "file"), [(6000, "checkpoint"), (300, "metrics.jsonl")])
def test_a_full_disk_is_named_and_the_last_checkpoint_intact(
    size: int, file: str, uninterrupted: Path, tmp_path: Path
) -> None:
    """No file may grow beyond ``size`` bytes from step 5 on; a checkpoint is due at step 8."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(trainer: Trainer) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    try:
        with pytest.raises(StoppedError) as stop:
            train(tmp_path / "run", callbacks={"at": At(5, fill)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message, run = str(stop.value), RunDirectory(tmp_path / "run")
    assert file in message
    assert "MB free" in message
    assert ("MB needed" in message) == (file == "checkpoint")
    assert "last.ckpt is intact" in message
    assert f"it continues with flowexp train run={run.path}" in message
    assert read_checkpoint(run.checkpoint())["step"] == 4
    train(tmp_path / "run")
    assert_same_state(uninterrupted, tmp_path / "run")


def test_an_error_of_torch_that_is_not_the_disks_stays_what_it_is(tmp_path: Path) -> None:
    from flowexp.files import room_for

    for error in (RuntimeError("shapes differ"), PermissionError(errno.EACCES, "no", "x")):
        with pytest.raises(type(error)), room_for(tmp_path / "x"):
            raise error
    assert os.listdir(tmp_path) == []
