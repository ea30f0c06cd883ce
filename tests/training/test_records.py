"""Rows: the file that is the record, the window behind it, and the loggers that copy it."""

import csv
import io
import json
import math
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from flowexp.apps.run_loggers import log_scores
from flowexp.metrics.protocol import MetricRecord, Protocol
from flowexp.runs import RunDirectory
from flowexp.runs.metrics_file import MetricsFile, read_rows
from flowexp.training import CSVLogger, SampleGrid, TensorBoardLogger, WandbLogger
from flowexp.training.callbacks.records import LogWindow
from tests.training.test_callbacks import sampler
from tests.training.test_fit import StopAt, rows
from tests.training.tiny import train

if TYPE_CHECKING:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


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


def read_events(folder: Path) -> "EventAccumulator":
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    return events.Reload()


def texts(events: "EventAccumulator", name: str) -> list[str]:
    tensors = events.Tensors(f"{name}/text_summary")
    return [event.tensor_proto.string_val[0].decode() for event in tensors]


@pytest.fixture(scope="module")
def killed_twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with grids in TensorBoard that was killed twice after the same checkpoint."""
    run = tmp_path_factory.mktemp("killed") / "run"

    def again(**stop: StopAt) -> None:
        callbacks = {"grid": SampleGrid(every_kimg=0.1, num=2), **stop}
        train(run, sampler=sampler(), loggers={"tb": TensorBoardLogger()}, callbacks=callbacks)

    for _ in range(2):
        with pytest.raises(RuntimeError, match="power cut"):
            again(stop=StopAt(15))
    again()
    return run


def test_tensorboard_has_the_grids_the_config_and_the_system_once(killed_twice: Path) -> None:
    events = read_events(killed_twice / "tensorboard")
    files = sorted((killed_twice / "samples").iterdir())
    steps = [round(float(file.stem.removeprefix("grid-")) * 1000 / 16) for file in files]
    assert [event.step for event in events.Images("samples/grid")] == steps
    stored = io.BytesIO(events.Images("samples/grid")[-1].encoded_image_string)
    with Image.open(stored) as shown, Image.open(files[-1]) as written:
        assert np.array_equal(shown.convert("RGB"), written.convert("RGB"))
    (config,) = texts(events, "config")
    content = "\n".join(line.removeprefix("    ") for line in config.splitlines())
    assert yaml.safe_load(content) == {"seed": 0, "trainer": {"batch_size": 16}}
    assert texts(events, "system/torch") == [torch.__version__]
    assert texts(events, "system/threads") == [str(torch.get_num_threads())]
    assert texts(events, "system/device")[0]


def test_tensorboard_has_the_names_and_rows_of_the_metrics_file(killed_twice: Path) -> None:
    events = read_events(killed_twice / "tensorboard")
    recorded = list(read_rows(killed_twice / "metrics.jsonl"))
    names = {name for row in recorded for name in row} - {"step", "partial"}
    assert {"kimg", "time/images_per_second", "time/cores", "system/memory_gib"} < names
    assert set(events.Tags()["scalars"]) == names
    for name in names:
        assert [event.step for event in events.Scalars(name)] == [r["step"] for r in recorded]


def record(name: str, value: float) -> MetricRecord:
    protocol = Protocol(
        metric="FD",
        extractor="raw values",
        weights_sha256=None,
        resize="none",
        quantization="none",
        reference="digits",
        reference_fingerprint="0",
        reference_split="train",
        n_ref=100,
        n_gen=2000,
    )
    return MetricRecord(name=name, value=value, protocol=protocol, extra={"floor": 4.5})


def opened(run: Path, target: str) -> types.SimpleNamespace:
    """A run whose training had a logger, with its weights."""
    config = {"seed": 1, "logger": {"one": {"_target_": f"flowexp.training.{target}"}}}
    directory = RunDirectory.start(run, config=config)
    return types.SimpleNamespace(
        run=RunDirectory(directory.path), weights=types.SimpleNamespace(step=20, kimg=0.32)
    )


def test_scores_are_in_tensorboard_with_their_protocol_at_the_step_of_the_weights(
    tmp_path: Path,
) -> None:
    one = opened(tmp_path / "run", "TensorBoardLogger")
    log_scores(one, [record("fd_raw", 12.5)])
    log_scores(one, [record("fd_raw", math.nan)])
    events = read_events(tmp_path / "run" / "tensorboard")
    scores = [(event.step, event.value) for event in events.Scalars("eval/fd_raw_2k")]
    assert scores == [(20, 12.5), (20, pytest.approx(math.nan, nan_ok=True))]
    protocol = texts(events, "eval/fd_raw_2k/protocol")[0]
    for line in ("kimg: 0.32", "extractor: raw values", "n_gen: 2000", "floor: 4.5"):
        assert line in protocol


def test_scores_of_a_run_in_training_leave_its_own_file_the_newest(tmp_path: Path) -> None:
    one = opened(tmp_path / "run", "TensorBoardLogger")
    training = RunDirectory.start(tmp_path / "run", config=one.run.config())
    log_scores(one, [record("fd_raw", 12.5)])
    assert not list((tmp_path / "run" / "tensorboard").glob("events*"))
    events = read_events(tmp_path / "run" / "tensorboard" / "eval")
    assert [event.step for event in events.Scalars("eval/fd_raw_2k")] == [20]
    del training


@pytest.mark.parametrize("target", ["CSVLogger", "WandbLogger"])
def test_a_logger_that_takes_no_scores_does_not_stop_the_evaluation(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("the server is away")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    log_scores(opened(tmp_path / "run", target), [record("fd_raw", 12.5)])
    assert ("the scores were not logged to one: the server is away" in caplog.text) == (
        target == "WandbLogger"
    )


class FakeRun:
    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.arguments = arguments
        self.rows: list[tuple[int | None, dict[str, Any]]] = []
        self.exit_code: int | None = None
        self.facts: dict[str, Any] = {}
        self.axes: dict[str, str] = {}
        self.config = types.SimpleNamespace(
            update=lambda facts, allow_val_change: self.facts.update(facts)
        )

    def log(self, row: dict[str, Any], step: int | None = None) -> None:
        self.rows.append((step, row))

    def define_metric(self, name: str, *, step_metric: str) -> None:
        self.axes[name] = step_metric

    def finish(self, exit_code: int = 0) -> None:
        self.exit_code = exit_code


@pytest.fixture
def wandb_runs(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """The runs that are opened in a stand-in of wandb."""
    runs: list[FakeRun] = []

    def init(**arguments: Any) -> FakeRun:
        runs.append(FakeRun(arguments))
        return runs[-1]

    module = types.SimpleNamespace(init=init, Image=str)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def test_wandb_has_the_grids_and_the_system_and_no_row_twice(
    tmp_path: Path, wandb_runs: list[FakeRun]
) -> None:
    def again(**stop: StopAt) -> None:
        callbacks = {"grid": SampleGrid(num=2), **stop}
        loggers = {"wandb": WandbLogger()}
        train(tmp_path / "run", sampler=sampler(), loggers=loggers, callbacks=callbacks)

    with pytest.raises(RuntimeError, match="power cut"):
        again(stop=StopAt(15))
    again()
    logged = [(step, row) for run in wandb_runs for step, row in run.rows]
    losses = [step for step, row in logged if "train/loss" in row]
    assert losses == [row["step"] for row in rows(tmp_path / "run")]
    assert [step for step, row in logged if "samples/grid" in row] == [20]
    assert logged[-1][1]["samples/grid"] == str(next((tmp_path / "run" / "samples").iterdir()))
    for run in wandb_runs:
        assert run.facts["system/torch"] == torch.__version__
        assert run.facts["system/threads"] == torch.get_num_threads()


def test_wandb_gets_scores_over_kimg_with_their_protocol(
    tmp_path: Path, wandb_runs: list[FakeRun]
) -> None:
    one = opened(tmp_path / "run", "WandbLogger")
    log_scores(one, [record("fd_raw", 12.5), record("precision", 0.5)])
    (run,) = wandb_runs
    assert run.arguments["id"] == (tmp_path / "run" / "wandb_id.txt").read_text().strip()
    assert run.arguments["config"]["seed"] == 1
    assert run.axes == {"eval/*": "kimg"}
    scores = {"eval/fd_raw_2k": 12.5, "eval/precision2k": 0.5}
    assert run.rows == [(None, {"step": 20, "kimg": 0.32, **scores})]
    assert run.facts["eval/fd_raw_2k/protocol"]["protocol"]["n_gen"] == 2000
    assert run.exit_code == 0


def test_wandb_keeps_its_id_and_is_always_finished(
    tmp_path: Path, wandb_runs: list[FakeRun]
) -> None:
    runs = wandb_runs
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
