"""One trained run: trained once per worker, and a copy of it for every test."""

import shutil

import pytest

from tests.e2e.command import TINY, flowexp


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    """A tiny class-conditional run on digits; only to be copied from."""
    folder = tmp_path_factory.mktemp("trained")
    outcome = flowexp("train", *TINY, "dirs.run=run", cwd=folder)
    assert outcome.code == 0, outcome.err
    return folder / "run"


@pytest.fixture
def trained_run(trained_once, tmp_path_factory):
    """A copy of the trained run that belongs to one test, so no test sees another's results."""
    return shutil.copytree(trained_once, tmp_path_factory.mktemp("copied") / "run")
