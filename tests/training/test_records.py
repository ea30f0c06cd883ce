"""Rows: the file that is the record, the window behind it, and the loggers that copy it."""

import csv
import json
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from flowexp.runs import RunDirectory
from flowexp.runs.metrics_file import MetricsFile, read_rows
from flowexp.training import CSVLogger, TensorBoardLogger, WandbLogger
from flowexp.training.callbacks.records import LogWindow
from tests.training.test_fit import StopAt, rows
from tests.training.tiny import train


def test_rows_after_the_checkpoint_and_a_cut_line_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "train/loss": step / 3}) for step in (1, 2, 3)]
    path.write_text("\n".join(lines) + '\n{"step": 4, "train')
    file = MetricsFile(path, step=2)
    assert file.last_row == {"step": 2, "train/loss": 2 / 3}
    file.append({"step": 3, "train/loss": float("nan")})
    file.close()
    assert list(read_rows(path)) == [
        {"step": 1, "train/loss": 1 / 3},
        {"step": 2, "train/loss": 2 / 3},
        {"step": 3, "train/loss": None},
    ]


def test_the_window_is_a_mean_and_survives_a_checkpoint() -> None:
    window = LogWindow()
    for value in (1.0, 2.0, 6.0):
        window.add({"loss": torch.tensor(value)})
    copy = LogWindow()
    copy.load(window.state(), device=torch.device("cpu"))
    assert window.means() == copy.means() == {"loss": 3.0}
    copy.empty()
    assert copy.means() == {}
    with pytest.raises(ValueError, match="window"):
        window.add({"other": torch.tensor(0.0)})


def test_csv_has_every_row_once_after_a_resumption(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "run", loggers={"csv": CSVLogger()}, callbacks={"stop": StopAt(11)})
    train(tmp_path / "run", loggers={"csv": CSVLogger()})
    with (tmp_path / "run" / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    recorded = rows(tmp_path / "run")
    assert [int(row["step"]) for row in table] == [row["step"] for row in recorded]
    assert [float(row["train/loss"]) for row in table] == [r["train/loss"] for r in recorded]


def test_csv_grows_a_column_for_a_new_metric(tmp_path: Path) -> None:
    run = RunDirectory.start(tmp_path, config={})
    logger = CSVLogger()
    logger.start(run, config={}, step=0)
    logger.log_metrics({"a": 1.0}, step=1)
    logger.log_metrics({"a": 2.0, "b": 5.0}, step=2)
    logger.log_metrics({"a": 3.0}, step=3)
    logger.finalize("success")
    assert (tmp_path / "metrics.csv").read_text() == "step,a,b\n1,1.0,\n2,2.0,5.0\n3,3.0,\n"


def test_tensorboard_holds_every_step_once_after_a_resumption(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "run", loggers={"tb": TensorBoardLogger()}, callbacks={"stop": StopAt(11)})
    train(tmp_path / "run", loggers={"tb": TensorBoardLogger()})
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    scalars = {event.step: event.value for event in events.Scalars("train/loss")}
    assert len(events.Scalars("train/loss")) == len(scalars)
    assert scalars == pytest.approx({r["step"]: r["train/loss"] for r in rows(tmp_path / "run")})


class FakeRun:
    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.arguments = arguments
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.exit_code: int | None = None

    def log(self, row: dict[str, Any], step: int) -> None:
        self.rows.append((step, row))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


def test_wandb_keeps_its_id_and_is_always_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[FakeRun] = []

    def init(**arguments: Any) -> FakeRun:
        runs.append(FakeRun(arguments))
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "run", loggers={"wandb": WandbLogger()}, callbacks={"stop": StopAt(11)})
    train(tmp_path / "run", loggers={"wandb": WandbLogger()})
    train(tmp_path / "other", loggers={"wandb": WandbLogger()})
    first, resumed, other = runs
    assert first.arguments["id"] == resumed.arguments["id"] != other.arguments["id"]
    assert [run.exit_code for run in runs] == [1, 0, 0]
    assert first.arguments["config"] == {"seed": 0, "trainer": {"batch_size": 16}}
    assert first.arguments["mode"] == "offline"
    assert all(run.arguments["reinit"] == "create_new" for run in runs)
    assert [step for step, _ in other.rows] == [3, 6, 9, 12, 15, 18, 20]


def test_wandb_refuses_an_unknown_mode() -> None:
    with pytest.raises(ValueError, match="mode is 'on'; allowed: offline, online, disabled"):
        WandbLogger(mode="on")
