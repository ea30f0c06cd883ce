"""An error inside a part names the part's own line, its class and its config key."""

import sys
import textwrap

import pytest

from flowexp.config.failures import explain, in_words, place_in
from flowexp.errors import TRACEBACK
from flowexp.samplers import Euler

SOURCE = """
class Mine:
    def run(self, thing=None):
        helper()

    def passes_on(self, function):
        function()


class Other(Mine):
    def call(self, inner):
        inner.run()


def helper():
    raise KeyError("nothing")
"""
CONFIG = {
    "sampler": {"_target_": "parts_of_mine.Other"},
    "callbacks": {"a": {"_target_": "parts_of_mine.Mine"}},
    "guidance": {"_target_": "flowexp.samplers.Euler"},
}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    (tmp_path / "parts_of_mine.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    import parts_of_mine

    yield parts_of_mine
    del sys.modules["parts_of_mine"]


def caught(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_the_innermost_line_of_the_users_own_and_the_part_that_called_it(outside):
    place = place_in(caught(outside.Other().call, outside.Mine()), CONFIG)
    assert (place.function, place.line) == ("helper", 16)
    assert (place.key, place.target) == ("callbacks.a", "parts_of_mine.Mine")
    text = "in helper, parts_of_mine.py, line 16 (callbacks.a._target_=parts_of_mine.Mine)"
    assert str(place) == text


def test_what_flowexp_raises_on_behalf_of_a_part_is_the_parts_line(outside):
    place = place_in(caught(outside.Mine().passes_on, lambda: Euler(steps=0)), CONFIG)
    # The test's own lambda is the innermost line that is no library's.
    assert place.key == "callbacks.a"


def test_parts_of_flowexp_are_named_by_their_own_line():
    sampler = Euler(steps=1)
    place = place_in(caught(sampler.sample, None, None), CONFIG)
    assert place is not None
    error = caught(lambda: None + 1)
    assert place_in(error, {}).key is None


def test_the_sentence_has_message_place_and_where_the_traceback_is(outside):
    error = caught(outside.Other().run)
    explain(error, CONFIG)
    explain(error)  # again, where nothing is known of the config
    assert in_words(error) == (
        "KeyError: 'nothing'. Raised in helper, parts_of_mine.py, line 16 "
        "(sampler._target_=parts_of_mine.Other). "
        "Repeat the command with --debug for the traceback."
    )
    error.add_note(f"{TRACEBACK} r/log.txt.")
    assert in_words(error).endswith("The full traceback is in r/log.txt.")


def test_an_exception_without_a_message_or_a_traceback_is_named():
    assert in_words(RuntimeError()).startswith("RuntimeError. Repeat")
    assert place_in(RuntimeError("x"), CONFIG) is None
