"""Samples are computed with the number of threads that is wanted, or the fastest."""

import pytest
import torch

from flowexp.pipeline import sampling_threads
from flowexp.pipeline import threads as module
from flowexp.threads import VARIABLES, Measured
from tests.evaluation.tiny import pipeline


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("wanted", "count"), [(2, 2), (1, 1), (None, None)])
def test_a_number_is_taken_and_given_back(wanted, count):
    before = torch.get_num_threads()
    with sampling_threads(pipeline(), wanted) as words:
        assert words is None
        assert torch.get_num_threads() == (count or before)
    assert torch.get_num_threads() == before


def test_auto_measures_and_says_what_it_chose():
    with sampling_threads(pipeline(), "auto") as words:
        assert words.startswith(f"{torch.get_num_threads()} of 2 (")


def test_work_that_is_continued_keeps_its_number(tmp_path, monkeypatch):
    kept = tmp_path / "threads.txt"
    monkeypatch.setattr(module, "measure", lambda *_, **__: Measured({1: 1.0, 2: 1.9}, 2))
    with sampling_threads(pipeline(), "auto", kept_in=kept):
        assert torch.get_num_threads() == 2
    monkeypatch.setattr(module, "measure", lambda *_, **__: Measured({1: 1.0, 2: 0.1}, 2))
    with sampling_threads(pipeline(), "auto", kept_in=kept):
        assert torch.get_num_threads() == 2
    with sampling_threads(pipeline(), "auto"):
        assert torch.get_num_threads() == 1


def test_a_given_environment_is_not_measured(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with sampling_threads(pipeline(), "auto") as words:
        assert words is None
