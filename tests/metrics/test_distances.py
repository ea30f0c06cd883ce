import pytest
import torch

from flowexp.metrics.distances import distance_rows, nearest, squared_distances


def normal(n, d, *, seed, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) + offset


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_equals_the_sum_over_differences(offset):
    a, b = normal(20, 64, seed=0, offset=offset), normal(30, 64, seed=1, offset=offset)
    wanted = (a[:, None].double() - b[None].double()).square().sum(-1)
    torch.testing.assert_close(squared_distances(a, b), wanted, rtol=1e-9, atol=0)


def test_copies_are_at_distance_zero_also_after_rounding():
    a = normal(50, 2048, seed=0, offset=3.0)
    moved = a * (1 + 1e-7)
    assert torch.equal(squared_distances(a, a).diagonal(), torch.zeros(50, dtype=torch.float64))
    assert float(squared_distances(a, moved).diagonal().max()) == 0
    assert float(squared_distances(a, a * (1 + 1e-4)).diagonal().min()) > 0


def test_chunks_cover_every_row_in_order(monkeypatch):
    a, b = normal(17, 3, seed=0), normal(5, 3, seed=1)
    monkeypatch.setattr("flowexp.metrics.distances._BLOCK", 4 * 5)
    found = list(distance_rows(a, b))
    assert [start for start, _ in found] == [0, 4, 8, 12, 16]
    wanted = torch.cdist(a.double(), b.double())
    torch.testing.assert_close(torch.cat([d for _, d in found]), wanted, rtol=1e-9, atol=1e-12)


def test_the_nearest_row():
    b = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    distances, indices = nearest(torch.tensor([[9.0, 0.0], [0.0, 3.0]]), b)
    assert distances.tolist() == [1.0, 3.0]
    assert indices.tolist() == [1, 0]
