"""Callbacks and loggers of the Lightning ecosystem beside our own."""

import csv
from contextlib import nullcontext
from pathlib import Path

import pytest
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger as LightningCSVLogger

from flowexp.errors import UsageError
from flowexp.runs import read_checkpoint
from flowexp.training import CSVLogger
from tests.training.test_fit import StopAt, assert_same_state, rows
from tests.training.tiny import tiny_settings, train


class Watch(Callback):
    """Notes what a callback is shown, and keeps a state of its own."""

    def __init__(self) -> None:
        self.hooks: list[str] = []
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.count = 0

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss) -> None:
        self.hooks.append("backward")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module, optimizer) -> None:
        self.hooks.append("step")
        assert all(p.grad is not None for p in pl_module.network.parameters())

    def on_train_batch_end(self, trainer: Trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.hooks.append("end")
        self.steps.append(trainer.global_step)
        self.losses.append(float(outputs["loss"]))
        self.count += 1

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.count = state_dict["count"]


def test_a_callback_sees_every_hook_the_loss_and_the_step(tmp_path: Path) -> None:
    watch = Watch()
    settings = tiny_settings(log_every=1, micro_batch=8)
    train(tmp_path / "run", settings=settings, callbacks={"watch": watch})
    assert watch.hooks == ["backward", "backward", "step", "end"] * 20
    assert watch.steps == list(range(1, 21))
    assert watch.losses == pytest.approx([row["train/loss"] for row in rows(tmp_path / "run")])


def test_steps_and_states_of_callbacks_continue_after_a_resumption(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "run", callbacks={"watch": Watch(), "stop": StopAt(10)})
    watch = Watch()
    train(tmp_path / "run", callbacks={"watch": watch})
    assert watch.steps == list(range(9, 21))
    assert watch.count == 20


def test_a_state_that_a_checkpoint_cannot_hold_is_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Opaque(Callback):
        def state_dict(self) -> dict[str, object]:
            return {"path": Path()}

    result = train(tmp_path / "run", callbacks={"opaque": Opaque()})
    assert read_checkpoint(result.checkpoint)["callbacks"] == {}
    assert "state of Opaque is not saved" in caplog.text.replace(Opaque.__qualname__, "Opaque")


def test_lightnings_monitor_checkpoint_and_logger_work(tmp_path: Path) -> None:
    train(tmp_path / "plain")
    train(
        tmp_path / "run",
        callbacks={
            "rate": LearningRateMonitor(logging_interval="step"),
            "best": ModelCheckpoint(
                tmp_path / "best", monitor="train/loss", every_n_train_steps=6, save_top_k=-1
            ),
        },
        loggers={"csv": CSVLogger(), "theirs": LightningCSVLogger(tmp_path, "theirs", "v")},
    )
    assert_same_state(tmp_path / "plain", _without_callbacks(tmp_path / "run"))
    with (tmp_path / "theirs" / "v" / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    losses = {int(row["step"]): float(row["train/loss"]) for row in table if row["train/loss"]}
    assert losses == {row["step"]: row["train/loss"] for row in rows(tmp_path / "run")}
    assert any(row["lr-Adam"] for row in table)
    names = {file.name for file in (tmp_path / "best").iterdir()}
    assert {"epoch=0-step=6.ckpt", "epoch=0-step=12.ckpt", "epoch=0-step=18.ckpt"} <= names


def _without_callbacks(folder: Path) -> Path:
    import torch

    path = folder / "checkpoints" / "last.ckpt"
    torch.save({**read_checkpoint(path), "callbacks": {}}, path)
    return folder


def test_what_callbacks_logged_stays_in_the_table_after_a_resumption(tmp_path: Path) -> None:
    for stop in ({"stop": StopAt(11)}, {}):
        monitor = {"rate": LearningRateMonitor(logging_interval="step")}
        with pytest.raises(RuntimeError, match="power cut") if stop else nullcontext():
            train(tmp_path / "run", callbacks=monitor | stop, loggers={"csv": CSVLogger()})
    with (tmp_path / "run" / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    rates = [int(row["step"]) for row in table if row["lr-Adam"]]
    losses = [int(row["step"]) for row in table if row["train/loss"]]
    assert rates == sorted(set(rates))
    assert len(rates) >= 5
    assert losses == [3, 6, 9, 12, 15, 18, 20]


def test_a_callback_may_stop_a_training_and_the_same_command_continues_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Enough(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module, *_: object) -> None:
            trainer.should_stop = pl_module.step == 7

    train(tmp_path / "plain")
    result = train(tmp_path / "run", callbacks={"enough": Enough()})
    assert result.step == 7
    assert "stopped the training at step 7 of 20" in caplog.text
    train(tmp_path / "run")
    assert_same_state(tmp_path / "plain", tmp_path / "run")
    assert rows(tmp_path / "plain") == rows(tmp_path / "run")


@pytest.mark.parametrize(("group", "key"), [("callbacks", "callbacks"), ("loggers", "logger")])
def test_other_objects_are_refused(tmp_path: Path, group: str, key: str) -> None:
    with pytest.raises(UsageError, match=rf"{key}\.mine: object is not a pytorch_lightning\."):
        train(tmp_path / "run", **{group: {"mine": object()}})
