"""One trained run, shared by the tests that only read it."""

import pytest

from tests.e2e.command import TINY, flowexp


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """A tiny class-conditional run on digits; tests must not change it."""
    folder = tmp_path_factory.mktemp("trained")
    outcome = flowexp("train", *TINY, "dirs.run=run", cwd=folder)
    assert outcome.code == 0, outcome.err
    return folder / "run"
