"""What is drawn, when, and where: lines in logs, bars in terminals; the clock is the test's."""

import io

import pytest
from rich.console import Console

from flowexp.progress import Task, counted, shown, stage
from flowexp.progress.display import Bars, Lines
from flowexp.progress.task import running, telling


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def clock():
    return Clock()


def lines_at(display, clock, moments, capsys):
    """The moments at which a line was printed, and the lines."""
    found = {}
    for clock.now in moments:
        display.tick()
        if text := capsys.readouterr().err:
            found[clock.now] = text.rstrip("\n")
    return found


def test_what_takes_less_than_five_seconds_prints_nothing(clock, capsys):
    display = Lines(clock=clock, ticking=False)
    with telling(display):
        for _ in range(10):
            with counted("sampled", total=10, unit="samples"):
                clock.now += 4.9
                display.tick()
    assert capsys.readouterr() == ("", "")


def test_a_line_after_five_seconds_and_then_one_a_minute_on_stderr(clock, capsys):
    display = Lines(clock=clock, ticking=False)
    with telling(display), counted("sampled", total=1000, unit="samples") as task:
        task.advance(50)
        found = lines_at(display, clock, [k / 2 for k in range(400)], capsys)
    assert list(found) == [5.0, 65.0, 125.0, 185.0]
    assert found[5.0] == "sampled 50 of 1,000 samples, 10/s, 1:35 left"


def test_what_runs_within_something_else_shares_its_line(clock, capsys):
    display = Lines("job 3", clock=clock, ticking=False)
    with telling(display), counted("scored", total=4, unit="snapshots") as task:
        clock.now = 4.0
        with stage("loading the run"):
            found = lines_at(display, clock, [4.5, 6.0, 30.0], capsys)
        task.advance()
        with counted("sampled", total=10, unit="samples"):
            found |= lines_at(display, clock, [60.0, 66.0], capsys)
    assert found == {
        6.0: "job 3: scored 0 of 4 snapshots; loading the run, 0:02 so far",
        66.0: "job 3: scored 1 of 4 snapshots, 0.0152/s, 3:18 left; sampled 0 of 10 samples",
    }


def test_a_task_can_have_its_own_words_and_pace(clock, capsys):
    display = Lines(clock=clock, ticking=False)
    with telling(display), running(Task("", total=9, text=lambda: "3/9 kimg", line_seconds=30.0)):
        found = lines_at(display, clock, [5.0, 34.0, 35.0, 60.0], capsys)
    assert found == {5.0: "3/9 kimg", 35.0: "3/9 kimg"}


def opened(monkeypatch):
    """Stderr as a terminal of 80 columns; pytest has its own until a test has begun."""
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return stream


def test_a_terminal_has_bars_that_vanish(clock, monkeypatch, capsys):
    terminal = opened(monkeypatch)
    display = Bars(clock=clock, ticking=False)
    with telling(display), counted("sampled", total=1000, unit="samples") as task:
        display.tick()
        assert terminal.getvalue() == ""
        task.advance(500)
        clock.now = 5.0
        display.tick()
        assert "sampled 500 of 1,000 samples, 100/s, 0:05 left" in terminal.getvalue()
        assert "\x1b[?25l" in terminal.getvalue()  # the cursor is hidden
    assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
    assert capsys.readouterr().out == ""


def test_an_interrupt_leaves_the_terminal_clean(monkeypatch):
    terminal = opened(monkeypatch)
    with pytest.raises(KeyboardInterrupt), shown(), stage("loading"):
        raise KeyboardInterrupt
    assert "\x1b[?25l" not in terminal.getvalue()
    clock = Clock()
    display = Bars(clock=clock, ticking=False)

    def interrupted():
        with stage("loading"):
            clock.now = 1.0
            display.tick()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), telling(display):
        interrupted()
    shows, hides = (terminal.getvalue().rindex(f"\x1b[?25{end}") for end in "hl")
    assert shows > hides


def test_a_bar_has_eighty_columns(clock):
    display = Bars(clock=clock, ticking=False)
    written = io.StringIO()
    console = Console(file=written, width=80, force_terminal=False)
    long = "images of a data set with a very long name indeed/train"
    with telling(display), counted("statistics of", total=60_000, unit=long) as task, stage("x"):
        task.advance(12_345)
        clock.now = 100.0
        console.print(display.rendered())
    lines = written.getvalue().splitlines()
    assert len(lines) == 2
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(("term", "label"), [("dumb", ""), ("xterm", "job 1")])
def test_dumb_terminals_and_jobs_beside_others_get_lines(term, label, monkeypatch):
    opened(monkeypatch)
    monkeypatch.setenv("TERM", term)
    kinds = []
    monkeypatch.setattr(Lines, "begin", lambda self, task: kinds.append(self.label))
    with shown(label=label), stage("loading"):
        pass
    assert kinds == [label]


def test_only_the_first_process_shows_anything(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    begun = []
    monkeypatch.setattr(Lines, "begin", lambda self, task: begun.append(task))
    with shown(), stage("loading"):
        pass
    assert begun == []


def test_the_thread_ends_with_the_context():
    import threading

    with shown(), stage("loading"):
        assert "progress" in {thread.name for thread in threading.enumerate()}
    assert "progress" not in {thread.name for thread in threading.enumerate()}
