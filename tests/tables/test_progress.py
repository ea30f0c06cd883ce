"""How long a table's jobs will take, from those that were done."""

import pytest

from flowexp.tables.progress import JobState, Pace

WAITING, RUNNING, DONE = (JobState(status) for status in ("waiting", "running", "done"))


def training(kimg, of_kimg=10.0):
    return JobState("running", kimg, of_kimg)


class Table:
    """Jobs with states, and a clock that only the test moves."""

    def __init__(self, **verbs):
        names = [verb for verb, count in verbs.items() for _ in range(count)]
        self.now = 0.0
        self.states = [WAITING] * len(names)
        self.pace = Pace(names, clock=lambda: self.now)

    def words(self, changes=None, *, after=0.0):
        self.now += after
        for number, state in (changes or {}).items():
            self.states[number] = state
        return self.pace.words(self.states)


def test_trainings_say_nothing_of_evaluations():
    table = Table(train=75, eval=500)
    assert table.words({0: RUNNING}) == "0 of 575 jobs done, 1 running"
    first = table.words({0: DONE, 75: RUNNING}, after=100)
    assert first == "1 of 575 jobs done, 1 running, about 2:03:20 left without eval"
    assert table.words({75: DONE}, after=2).endswith("about 2:19:58 left")  # 74 x 100 + 499 x 2


def test_jobs_that_run_at_once_share_the_time():
    table = Table(train=4, eval=2)
    table.words({0: RUNNING, 1: RUNNING})
    words = table.words({0: DONE, 1: DONE}, after=60)
    assert words == "2 of 6 jobs done, about 1:00 left without eval"


def test_a_running_training_counts_by_its_images():
    table = Table(train=2)
    table.words({0: training(0.0)})
    assert table.words({0: training(2.5)}, after=30).endswith("about 3:30 left")


def test_what_an_earlier_command_trained_took_no_time_here():
    table = Table(train=3)
    table.words({0: DONE, 1: training(5.0)})
    words = table.words({1: training(7.5)}, after=30)
    assert words == "1 of 3 jobs done, 1 running, about 2:30 left"


def test_a_running_evaluation_counts_by_its_time():
    table = Table(eval=2)
    table.words({0: RUNNING})
    table.words({0: DONE, 1: RUNNING}, after=40)
    assert table.words(after=10).endswith("about 0:30 left")
    assert "left" not in table.words(after=60)


@pytest.mark.parametrize("status", ["failed", "waiting"])
def test_a_job_that_failed_or_was_stopped_shows_no_pace(status):
    table = Table(train=2)
    table.words({0: RUNNING})
    assert "left" not in table.words({0: JobState(status)}, after=1)
