"""What the chosen launcher makes of an engine that fails."""

import pytest
from hydra.core.utils import JobReturn, JobStatus

from flowexp.config.application import ChosenLauncher, LauncherError


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


def chosen(engine):
    launcher = object.__new__(ChosenLauncher)
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


def test_an_engine_that_fails_is_named_with_its_words():
    launcher = chosen(Engine(TimeoutError("a worker was killed")))
    with pytest.raises(LauncherError, match="Engine: TimeoutError: a worker was killed"):
        launcher.launch([["job=a"]])
