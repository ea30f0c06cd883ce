"""What happens beside the steps, and that it leaves the training alone."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer

from flowexp.errors import UsageError
from flowexp.models import Model
from flowexp.progress.task import telling
from flowexp.samplers import Euler
from flowexp.samplers.time_grids import Natural
from flowexp.training import Progress, SampleGrid
from flowexp.training.module import FlowModule
from tests.training.test_fit import assert_same_state, rows
from tests.training.tiny import tiny_settings, train


def sampler() -> Euler:
    return Euler(steps=2, time_grid=Natural())


def test_grids_are_written_and_do_not_disturb_the_training(tmp_path: Path) -> None:
    train(tmp_path / "plain")
    train(
        tmp_path / "run",
        sampler=sampler(),
        callbacks={"grid": SampleGrid(every_kimg=0.1, num=6, columns=3, batch_size=4)},
    )
    files = sorted(file.name for file in (tmp_path / "run" / "samples").iterdir())
    assert files == [f"grid-{kimg:010.3f}.png" for kimg in (0.112, 0.208, 0.304, 0.320)]
    picture = np.asarray(Image.open(tmp_path / "run" / "samples" / files[0]))
    assert picture.shape[0] == 11 * 16, "two of the three classes, three samples each"
    assert picture.shape[1] > 16 * 16, "their names stand beside them"
    assert_same_state(tmp_path / "plain", tmp_path / "run")
    assert rows(tmp_path / "plain") == rows(tmp_path / "run")


def test_a_resumed_run_writes_the_grids_that_are_due(tmp_path: Path) -> None:
    grid = SampleGrid(every_kimg=0.1, num=2)
    for max_kimg in (0.16, 0.32):
        train(
            tmp_path / "run",
            sampler=sampler(),
            settings=tiny_settings(max_kimg=max_kimg),
            callbacks={"grid": grid},
        )
    names = {file.name for file in (tmp_path / "run" / "samples").iterdir()}
    assert names == {f"grid-{kimg:010.3f}.png" for kimg in (0.112, 0.160, 0.208, 0.304, 0.320)}


def test_grids_come_from_the_chosen_average(tmp_path: Path) -> None:
    seen = []

    class Watching(Euler):
        def sample(self, model: Model, e: torch.Tensor, **rest):
            seen.append(model.network.enter.weight.detach().clone())
            assert not model.network.training
            return super().sample(model, e, **rest)

    class Grid(SampleGrid):
        def on_train_end(self, trainer: Trainer, pl_module: FlowModule) -> None:
            super().on_train_end(trainer, pl_module)
            seen.append(pl_module.averages.state()["power"]["enter.weight"].clone())
            assert pl_module.network.training

    watching = Watching(steps=1, time_grid=Natural())
    train(tmp_path / "run", sampler=watching, callbacks={"grid": Grid(num=2, ema="power")})
    assert torch.equal(seen[0], seen[1])


def test_an_unknown_average_is_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no average 'wide'.*There are: main, power"):
        train(tmp_path / "run", sampler=sampler(), callbacks={"grid": SampleGrid(ema="wide")})
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda: SampleGrid(num=0),
        lambda: SampleGrid(every_kimg=0.0),
        lambda: Progress(refresh_seconds=0.1),
        lambda: Progress(line_seconds=0.0),
    ],
)
def test_impossible_numbers_are_refused(make) -> None:
    with pytest.raises(ValueError, match="allowed: "):
        make()


class Heard:
    """Keeps the tasks of a training and what they said last."""

    def __init__(self):
        self.tasks, self.texts = [], []

    def begin(self, task):
        self.told(task, new=True)

    def end(self, task):
        self.told(task)

    def told(self, task, *, new=False):
        if task.before != "checked":  # the digest of the data
            self.tasks += [task] * new
            self.texts.append(task.described(0.0))


def test_a_training_reports_kimg_loss_speed_and_remaining_time(tmp_path: Path) -> None:
    heard = Heard()
    with telling(heard):
        train(tmp_path / "run", callbacks={"progress": Progress(line_seconds=7.0)})
    (task,) = heard.tasks
    assert (task.done, task.total, task.line_seconds) == (20, 20, 7.0)
    first, last = heard.texts
    assert first.startswith("0.0/0.32 kimg  loss -")
    assert re.fullmatch(r"0.3/0.32 kimg  loss [0-9.]+  [0-9]+ img/s  0:00 left", last)


def test_grids_are_reported_within_the_training(tmp_path: Path) -> None:
    heard = Heard()
    grid = SampleGrid(num=6, batch_size=4)
    with telling(heard):
        train(tmp_path / "run", sampler=sampler(), callbacks={"p": Progress(), "grid": grid})
    assert [task.total for task in heard.tasks] == [20, 6]
    assert heard.texts[2] == "sampled 6 of 6 samples"


def test_a_training_outside_the_command_line_shows_itself_and_is_quiet_when_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", callbacks={"progress": Progress()})
    assert capsys.readouterr() == ("", "")
