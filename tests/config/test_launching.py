"""What the chosen launcher makes of an engine that fails."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from hydra.core.utils import JobReturn, JobStatus

from flowexp.config import application
from flowexp.config.application import Job, launch
from flowexp.config.check import check
from flowexp.config.launcher import ChosenLauncher, LauncherError, jobs_at_once
from flowexp.errors import UsageError


class Engine:
    """A launcher of Hydra's that answers with what it was given."""

    def __init__(self, *answers):
        self.answers = answers
        self.asked = []

    def launch(self, job_overrides, initial_job_idx):
        self.asked.append((job_overrides, initial_job_idx))
        if isinstance(self.answers[0], Exception):
            raise self.answers[0]
        return [JobReturn(status=status, _return_value=value) for status, value in self.answers]


def chosen(engine, *, at_once=0):
    launcher = object.__new__(ChosenLauncher)
    launcher._at_once = at_once
    launcher._launcher, launcher._overrides, launcher._started = engine, ["own=1"], 0
    return launcher


def test_what_each_job_told_comes_back_in_order():
    failed = (JobStatus.FAILED, ValueError("lost"))
    engine = Engine((JobStatus.COMPLETED, True), (JobStatus.COMPLETED, False), failed)
    launcher = chosen(engine)
    jobs = [["job=a"], ["job=b"], ["job=c"]]
    assert launcher.launch(jobs) == launcher.launch(jobs) == [True, False, False]
    assert [index for _, index in engine.asked] == [0, 3]
    assert engine.asked[0][0] == [["own=1", *job] for job in jobs]


def test_jobs_of_joblib_share_the_cores_and_a_few_share_them_among_themselves():
    config = check("train", ["launcher=joblib", "launcher.jobs=4", "seed=1,2"], multirun=True)
    assert jobs_at_once(config.sound()) == 4
    assert jobs_at_once(check("train", ["launcher=slurm"]).config) is None
    engine = Engine((JobStatus.COMPLETED, True))
    launcher = chosen(engine, at_once=4)
    launcher.launch([["job=a"]])
    launcher.launch([[f"job={n}"] for n in range(5)])
    assert engine.asked[0][0] == [["own=1", "launcher.sharing=1", "job=a"]]
    assert engine.asked[1][0][0] == ["own=1", "job=0"]


def test_an_engine_that_fails_is_named_with_its_words():
    launcher = chosen(Engine(TimeoutError("a worker was killed")))
    with pytest.raises(LauncherError, match="Engine: TimeoutError: a worker was killed"):
        launcher.launch([["job=a"]])


@pytest.mark.parametrize("folder", ["x", "outputs/a b", "one,two", "${seed}"])
def test_one_folder_for_all_jobs_of_a_sweep_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = folder if "," in folder else f"'{folder}'"
    arguments = ["dataset=digits", "seed=1,2", f"dirs.run={given}", "-m"]
    with pytest.raises(UsageError, match=r"dirs\.run: .* share one folder\. .*dirs\.sweep=.* 0, 1"):
        launch("train", lambda job: None, arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("launcher", "number", "label"),
    [
        ("hydra._internal.core_plugins.basic_launcher.BasicLauncher", 3, None),
        ("hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", 3, "job 3"),
        ("hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", None, None),
    ],
)
def test_jobs_beside_others_have_lines_with_their_number(
    launcher, number, label, monkeypatch, tmp_path
):
    labels = []
    running = SimpleNamespace(launcher={"_target_": launcher})
    monkeypatch.setattr(application.HydraConfig, "get", lambda: running)
    monkeypatch.setattr(application, "shown", lambda label: nullcontext(labels.append(label)))
    with application._progress_of(Job(config={}, directory=tmp_path, number=number)):
        pass
    assert labels == ([label] if label else [])
