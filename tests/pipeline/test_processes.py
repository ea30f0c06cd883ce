"""The place among processes, without any others."""

import pytest

from flowexp.pipeline import Processes
from flowexp.processes import in_turn


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with Processes.start() as processes:
        assert (processes.rank, processes.world_size, processes.is_first) == (0, 1, True)
        assert processes.gather("x") == ["x"]
        processes.barrier()


def test_a_single_torchrun_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Processes.start().world_size == 1


def test_shares_are_disjoint_and_complete() -> None:
    shares = [Processes(rank=rank, world_size=3).share(range(10)) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(10))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_an_impossible_rank_is_refused() -> None:
    with pytest.raises(ValueError, match="rank is 2; allowed: 0 to 1"):
        Processes(rank=2, world_size=2)


def test_shares_come_together_in_turn_whatever_their_lengths_and_items() -> None:
    assert in_turn([[0, 2, 4], [1, 3]]) == [0, 1, 2, 3, 4]
    assert in_turn([[None], [1, 2, None]]) == [None, 1, 2, None]
    assert in_turn([]) == []
