"""Reports of progress: what they say, who hears of them, and that they cost next to nothing."""

import subprocess
import sys
import time

import pytest

from flowexp.progress import Task, advance, counted, listening, stage, steps_of, track
from flowexp.progress.task import duration, telling


class Heard:
    """Records the tasks that begin and end."""

    def __init__(self):
        self.begun, self.ended = [], []

    def begin(self, task):
        self.begun.append(task)

    def end(self, task):
        self.ended.append(task)


def test_a_task_says_how_much_is_done_how_fast_and_how_long_is_left():
    task = Task("statistics for", total=121, unit="times")
    assert task.described(5.0) == "statistics for 0 of 121 times"
    task.advance(97)
    assert task.described(9.7) == "statistics for 97 of 121 times, 10/s, 0:02 left"


def test_what_was_there_before_says_nothing_about_the_speed():
    task = Task("made", total=4000, unit="pairs")
    task.advance(3000, made=False)
    task.advance(100)
    assert task.described(10.0) == "made 3,100 of 4,000 pairs, 10/s, 1:30 left"


def test_without_a_total_the_time_so_far_is_said():
    assert Task("loading the run").described(7.0) == "loading the run, 0:07 so far"
    task = Task("processed", unit="frames")
    task.advance(1200)
    assert task.described(61.0) == "processed 1,200 frames, 1:01 so far"


def test_the_total_is_never_exceeded_and_nothing_goes_back():
    task = Task("sampled", total=10, unit="samples")
    task.advance(8)
    task.reach(3)
    assert task.done == 8
    task.advance(8)
    assert task.done == task.so_far == 10


def test_steps_of_a_batch_count_until_the_batch_is_done():
    with telling(Heard()), counted("sampled", total=100, unit="samples") as task:
        observe = steps_of(50, steps=10)
        for _ in range(1 + 4):  # the start and four steps
            observe(0.5, None)
        assert task.so_far == pytest.approx(20.0)
        advance(50)
        assert task.so_far == 50.0
        assert steps_of(50, steps=None) is None
    assert steps_of(50, steps=10) is None


def test_nobody_hears_unless_asked_and_nested_tasks_are_told_in_order():
    assert not listening()
    heard = Heard()
    with telling(heard), stage("outer"):
        assert list(track([1, 2], "counted", unit="items")) == [1, 2]
        with telling(None), stage("unheard"):
            pass
    assert [task.before for task in heard.begun] == ["outer", "counted"]
    assert [task.before for task in heard.ended] == ["counted", "outer"]
    assert heard.ended[0].done == heard.ended[0].total == 2
    assert not listening()


def test_a_failure_and_a_dropped_iterator_end_their_tasks():
    heard = Heard()
    with telling(heard):
        with pytest.raises(KeyboardInterrupt), counted("sampled", total=3, unit="samples"):
            raise KeyboardInterrupt
        dropped = track(range(3), "read", unit="items")
        next(dropped)
        del dropped
        assert heard.ended == heard.begun
        assert steps_of(1, steps=1) is None  # no task runs


def test_a_report_takes_microseconds():
    with counted("sampled", total=20_000, unit="samples") as task:
        began = time.process_time()
        for _ in range(20_000):
            task.advance()
    assert (time.process_time() - began) / 20_000 < 2e-5


@pytest.mark.parametrize(
    ("seconds", "text"), [(7, "0:07"), (750, "12:30"), (11_100, "3:05:00"), (59.7, "1:00")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_importing_the_reports_imports_nothing_heavy():
    code = "import sys, flowexp.progress; print({'torch', 'rich', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
