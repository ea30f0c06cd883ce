"""How many threads: what is given, what jobs share, and what a measurement says."""

import os
import time
from functools import partial

import pytest
import torch

from flowexp import threads
from flowexp.threads import Measured, given_threads, measure, outlook, usable_cores, workers


@pytest.fixture
def cores(monkeypatch):
    """Eight cores, and an environment that asks for nothing."""
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    for name in (*threads.VARIABLES, threads.SHARED_BY):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(("jobs", "share"), [("3", 2), ("2", 4), ("9", 1), ("-1", 1)])
def test_jobs_share_the_cores(cores, jobs, share):
    assert (usable_cores(), workers(16)) == (8, 16)
    cores.setenv(threads.SHARED_BY, jobs)
    assert (usable_cores(), workers(16)) == (share, share)


def test_a_given_number_is_kept_and_what_joblib_sets_is_none(cores):
    assert given_threads() is None
    assert outlook() == "1 to 8, the fastest in a short test at the start"
    cores.setenv(threads.SHARED_BY, "2")
    cores.setenv("OMP_NUM_THREADS", "4")
    assert given_threads() is None
    cores.setenv("OMP_NUM_THREADS", "3")
    assert given_threads() == (3, "OMP_NUM_THREADS")
    assert outlook() == "3 of 4, by OMP_NUM_THREADS"
    assert outlook(2) == "2 of 4, as given"


@pytest.mark.parametrize(
    ("speeds", "words"),
    [
        ({1: 1.0, 2: 0.3}, "1 of 2 (2 threads were 0.3 times as fast)"),
        ({1: 1.0, 2: 1.05}, "1 of 2 (2 threads were 1.1 times as fast)"),
        ({1: 1.0, 2: 1.6}, "2 of 2 (one thread was 0.62 times as fast)"),
    ],
)
def test_more_threads_are_taken_where_they_gain_a_tenth(speeds, words):
    assert str(Measured(speeds, 2)) == words


def test_the_fastest_number_is_found_and_a_hopeless_one_is_soon_dropped(cores):
    times = {1: 0.004, 2: 0.002, 4: 0.02, 8: 0.03}
    calls = []

    def work(name):
        calls.append((name, torch.get_num_threads()))
        time.sleep(times[torch.get_num_threads()])

    before = torch.get_num_threads()
    found = measure(partial(work, "whole"), first=partial(work, "first"), seconds=0.05)
    assert found.best == 2
    assert found.cores == 8
    assert {count for name, count in calls if name == "whole"} == {1, 2}
    assert torch.get_num_threads() == before


def test_a_busy_machine_is_named(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.9, 0.0, 0.0), raising=False)
    assert threads.crowd() is None
    monkeypatch.setattr(os, "getloadavg", lambda: (7.25, 0.0, 0.0), raising=False)
    assert threads.crowd() == "load 7.2 on 4 cores"
