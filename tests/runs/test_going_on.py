"""Going on with a run: finished or not, what may change, and the command of every refusal."""

import json
import math

import pytest

from flowexp.config.check import check
from flowexp.config.trust import USER
from flowexp.errors import UsageError
from flowexp.runs import RunDirectory
from flowexp.runs.going_on import GoingOn, steps_for, together
from flowexp.runs.metrics_file import MetricsFile, processor_seconds, training_seconds
from tests.e2e.command import TINY

LINEAR = (*TINY, "lr_schedule=linear_decay")  # 8 steps of 32 images, constant until the fourth


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def started(*overrides, step: int = 8) -> RunDirectory:
    """A run directory as it is after some steps; of its checkpoint only the name is looked at."""
    checked = check("train", [*overrides])
    manifest = {"choices": checked.choices}
    run = RunDirectory.start("R", config=checked.config, overrides=overrides, manifest=manifest)
    if step:
        (run.checkpoints / f"step-{step:09d}.ckpt").touch()
    return RunDirectory("R")


def by_run(run, *overrides) -> GoingOn:
    config = check("train", ["run=R", *overrides]).sound()
    config.pop("run")
    return GoingOn(run, config, ["run=R", *overrides], by=USER, named=True)


def by_folder(run, *overrides) -> GoingOn:
    return GoingOn(run, check("train", [*overrides]).sound(), overrides, by=USER, named=False)


def refusal(going_on: GoingOn) -> UsageError:
    with pytest.raises(UsageError) as caught:
        going_on.judge()
    return caught.value


def test_a_finished_run_says_how_to_go_on():
    going_on = by_run(started(*TINY))
    assert not going_on.judge()
    assert going_on.finished
    assert going_on.kimg == 0.256
    assert going_on.longer == "flowexp train run=R trainer.max_kimg=0.512"
    assert not by_run(going_on.run, "trainer.max_kimg=0.257").finished


def test_a_run_without_a_checkpoint_is_at_its_beginning():
    going_on = by_run(started(*TINY, step=0))
    assert (going_on.step, going_on.kimg, going_on.finished) == (0, 0.0, False)


@pytest.mark.parametrize(
    ("override", "key", "words"),
    [
        ("optimizer.lr=1e-5", "optimizer.lr", ["0.001", "1e-05", "from=R optimizer.lr=1e-5"]),
        ("seed=4", "seed", ["0", "4", "flowexp train from=R seed=4"]),
        ("network.model_channels=16", "network.model_channels", ["with 8", "16", "Leave it out."]),
        ("trainer.max_kimg=0.1", "trainer.max_kimg", ["0.256 kimg", "trainer.max_kimg=0.512"]),
    ],
)
def test_what_cannot_change_is_refused_by_its_key(override, key, words):
    error = refusal(by_run(started(*TINY, "optimizer.lr=1e-3"), override))
    assert error.key == key
    for word in words:
        assert word in f"{error.problem} {error.remedy}"
    assert "from=" not in str(error.remedy) or not key.startswith("network")


def test_another_run_in_its_folder_is_told_how_to_go_on_with_it():
    error = refusal(by_folder(started(*TINY), "trainer.max_kimg=7"))
    assert error.key == "dirs.run"
    assert "flowexp train run=R trainer.max_kimg=7" in str(error.remedy)
    assert "remove" not in str(error.remedy)
    assert error.problem.count("->") == 2  # of many


@pytest.mark.parametrize("step", [0, 4])
@pytest.mark.parametrize("form", [by_run, by_folder])
def test_a_schedule_follows_where_nothing_trained_changes(form, step):
    run = started(*LINEAR, step=step)
    longer = ["trainer.max_kimg=0.512"]
    going_on = form(run, *(longer if form is by_run else [*LINEAR, *longer]))
    assert going_on.config["lr_schedule"]["end_kimg"] == 0.512
    assert not going_on.judge()


@pytest.mark.parametrize("form", [by_run, by_folder])
def test_another_schedule_of_what_is_trained_is_refused_with_both_overrides(form):
    run = started(*LINEAR)
    longer = ["trainer.max_kimg=0.512"]
    error = refusal(form(run, *(longer if form is by_run else [*LINEAR, *longer])))
    assert error.key == "lr_schedule.end_kimg"
    remedy = str(error.remedy)
    assert "run=R trainer.max_kimg=0.512 lr_schedule.end_kimg=0.512" in remedy
    assert "(from here 0 times optimizer.lr): add lr_schedule.end_kimg=0.256" in remedy
    kept = [*longer, "lr_schedule.end_kimg=0.256"]
    going_on = form(run, *(kept if form is by_run else [*LINEAR, *kept]))
    assert not going_on.judge()


def test_a_schedule_that_is_chosen_anew_is_followed_and_noted():
    run = started(*TINY, "lr_schedule=cosine")
    changed = ["trainer.max_kimg=0.512", "lr_schedule.end_kimg=0.512"]
    going_on = by_run(run, *changed)
    assert going_on.judge()
    again = RunDirectory.start(
        "R", config=going_on.config, overrides=changed, judged=("lr_schedule",)
    )
    (change,) = again.manifest()["changes"]
    assert change["until"] == "step-000000008"
    assert change["lr_schedule"]["end_kimg"] == 0.256
    assert again.config()["lr_schedule"]["end_kimg"] == 0.512


def test_a_cosine_is_another_one_from_its_first_steps_on():
    error = refusal(by_run(started(*TINY, "lr_schedule=cosine", step=2), "trainer.max_kimg=0.512"))
    assert error.key == "lr_schedule.end_kimg"


def test_an_imported_run_has_nothing_to_go_on_with():
    run = started(*TINY)
    run.manifest_file.write_text(json.dumps({"parents": [{"role": "checkpoint"}]}))
    error = refusal(by_run(run))
    assert error.key == "run"
    assert "flowexp train from=R" in str(error.remedy)


def test_overrides_of_both_starts_make_the_run():
    before = ["experiment=a", "trainer.max_kimg=4", "dirs.run=R"]
    now = ["run=R", "trainer.max_kimg=7"]
    assert together(before, now) == ["experiment=a", "dirs.run=R", "trainer.max_kimg=7"]


@pytest.mark.parametrize(("kimg", "size", "steps"), [(0.256, 32, 8), (1.0, 32, 32), (1e-6, 5, 1)])
def test_steps_show_at_least_the_images(kimg, size, steps):
    assert steps_for(kimg, size) == steps
    assert steps * size >= math.floor(kimg * 1000)


def test_seconds_count_over_sessions(tmp_path):
    rows = [{"step": n, "time/seconds": s} for n, s in ((1, 2.0), (2, 5.0), (3, 1.0), (4, 4.0))]
    assert training_seconds(rows) == 9.0  # the second session began at 0 again
    assert training_seconds([{"step": 1}]) == 0.0
    path = tmp_path / "metrics.jsonl"
    rows[-1]["partial"] = True
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = MetricsFile(path, step=4)
    assert file.seconds == 9.0  # of the partial row too, which is written again
    file.append({"step": 5, "time/seconds": 11.0})
    file.close()
    seconds = [json.loads(line)["time/seconds"] for line in path.read_text().splitlines()]
    assert seconds == [2.0, 5.0, 6.0, 11.0]


def test_processor_time_adds_up_over_sessions() -> None:
    rows = [
        {"step": 1, "time/seconds": 4.0, "time/cores": 1.5},
        {"step": 2},
        {"step": 3, "time/seconds": 6.0, "time/cores": 0.5},
        {"step": 4, "time/seconds": 1.0, "time/cores": 2.0},  # of a second session
    ]
    assert processor_seconds(rows) == 4.0 * 1.5 + 2.0 * 0.5 + 1.0 * 2.0
    assert processor_seconds([{"step": 1, "time/seconds": 4.0}]) == 0.0


def test_a_run_names_the_command_that_goes_on_with_it(here, tmp_path):
    assert started(*TINY).continued_by == "flowexp train run=R"
    (tmp_path / "trial").mkdir()
    assert RunDirectory(tmp_path / "trial").continued_by == "flowexp train run=trial"
