"""Settings of the whole suite, and one trained run that tests copy."""

import os
import shutil

import pytest

# Tests run side by side, one process per core; more threads than cores only hinder each other.
# Commands started by tests inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Long tests first, so that no worker is left with one when the others have finished."""
    items.sort(key=lambda item: [item.get_closest_marker(m) is None for m in ("slow", "e2e")])


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    """A tiny class-conditional run on digits, trained once per worker; only to be copied from."""
    # Imported here, after the number of threads is set.
    from tests.e2e.command import TINY, flowexp

    folder = tmp_path_factory.mktemp("trained")
    outcome = flowexp("train", *TINY, "dirs.run=run", cwd=folder)
    assert outcome.code == 0, outcome.err
    return folder / "run"


@pytest.fixture
def trained_run(trained_once, tmp_path_factory):
    """A copy of the trained run that belongs to one test, so no test sees another's results."""
    return shutil.copytree(trained_once, tmp_path_factory.mktemp("copied") / "run")
