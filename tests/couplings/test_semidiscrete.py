"""Semidiscrete transport: cells of equal mass, known cells on the line, and what is stored."""

import json
import math
from dataclasses import dataclass

import pytest
import torch

from flowexp.couplings import MinibatchOT, SemidiscreteOT
from flowexp.couplings.semidiscrete import best_items, fit_potential, marginal_error
from flowexp.errors import UsageError
from flowexp.paths import Gaussian
from flowexp.seeding import generator

CPU = torch.device("cpu")


@dataclass
class Cloud:
    """Items in memory."""

    points: torch.Tensor
    labels: torch.Tensor | None = None
    fingerprint: str = "cloud"

    def __len__(self):
        return len(self.points)

    def data(self, rows):
        return self.points[rows]


def cloud(n=200, dimensions=16, seed=0, classes=4):
    rng = generator(seed, "cloud")
    points = (0.2 + torch.rand(n, 1, generator=rng)) * torch.randn(n, dimensions, generator=rng)
    return Cloud(points, torch.arange(n) % classes)


def prepared(items, folder, **options):
    coupling = SemidiscreteOT(directory=str(folder), **options)
    coupling.prepare(items, Gaussian(), source_identity="Gaussian()", device=CPU)
    return coupling


def normals(n, dimensions, seed=9):
    return torch.randn(n, dimensions, generator=generator(seed, "normals"))


def pair(coupling, e, conditions=None):
    x = torch.zeros_like(e)
    return coupling.pair(x, e, conditions or {}, rng=generator(0, "coupling"))


def draw_line(number, count):
    return torch.randn(count, 1, generator=generator(3, "line", number))


@pytest.mark.statistical
def test_cells_on_the_line_are_the_quantiles():
    """Optimal transport on the line is monotone: the k-th smallest of n points gets the draws
    between the quantiles k/n and (k + 1)/n. With 4000 draws per item the boundaries are exact to
    0.01 (standard deviation over seeds below 0.003)."""
    points = torch.tensor([0.3, -1.0, 0.35, 2.0, -0.1, 0.9, -3.0, 0.0])[:, None]
    items, rows = Cloud(points), torch.arange(8)
    offsets = fit_potential(draw_line, items, rows, draws=32_000, device=CPU)
    e = torch.linspace(-2.5, 2.5, 20_001)[:, None]
    chosen = best_items(e, items, rows, offsets)[1][:, 0]
    ranks = points.flatten().argsort().argsort()[chosen]
    assert (ranks.diff() >= 0).all()
    boundaries = e[1:].flatten()[ranks.diff() > 0]
    expected = torch.special.ndtri(torch.arange(1, 8, dtype=torch.float64) / 8)
    torch.testing.assert_close(boundaries.double(), expected, rtol=0, atol=0.02)


@pytest.mark.statistical
def test_marginals_are_uniform_and_the_stored_error_says_how_uniform(tmp_path):
    """Shares of 200 items by 100,000 fresh draws: the standard error of a chi-square distance is
    sqrt(2/n) n/draws = 0.0002; it is 0.01 for 200 draws per item."""
    items = cloud()
    coupling = prepared(items, tmp_path, draws_per_item=200.0)
    e = normals(100_000, 16)
    positions = {tuple(p.tolist()): i for i, p in enumerate(items.points)}
    won = torch.zeros(200)
    for x in pair(coupling, e).x.tolist():
        won[positions[tuple(x)]] += 1
    error = marginal_error(won)
    assert error < 0.02
    stored = coupling.record()["potential"]["marginal_error"]
    # the stored one is of 1000 draws: standard error 0.02
    assert abs(stored - error) < 0.1
    # the nearest item alone favours those of small norm
    alone = best_items(e[:5000], items, torch.arange(200), -items.points.square().sum(1))[1]
    assert marginal_error(torch.bincount(alone.flatten(), minlength=200)) > 0.2


@pytest.mark.statistical
def test_batch_plans_cost_more_than_the_plan_of_the_whole_set(tmp_path):
    """Means over 4096 pairs; batch plans approach the semidiscrete one from above."""
    items = cloud(n=256)
    coupling = prepared(items, tmp_path, draws_per_item=200.0)
    e = normals(4096, 16)
    data = items.points[torch.randint(256, (4096,), generator=generator(2, "data"))]

    def cost(x, e):
        return (x - e).square().sum(1).mean().item()

    def batch_cost(size):
        parts = [
            MinibatchOT().pair(data[i : i + size], e[i : i + size], {}, rng=generator(0, "ot"))
            for i in range(0, 4096, size)
        ]
        return sum(cost(p.x, p.e) for p in parts) / len(parts)

    costs = [cost(data, e), batch_cost(16), batch_cost(128), batch_cost(1024)]
    chosen = cost(pair(coupling, e).x, e)
    assert costs == sorted(costs, reverse=True)
    assert chosen < costs[2]
    assert abs(chosen - costs[3]) < abs(chosen - costs[1])


def test_labels_are_those_of_the_chosen_items(tmp_path):
    items = cloud()
    coupling = prepared(items, tmp_path, draws_per_item=20.0)
    labels = torch.full((50,), 7)
    pairs = pair(coupling, normals(50, 16), {"labels": labels, "absent": None})
    index = (pairs.x[:, None] == items.points[None]).all(2).float().argmax(1)
    assert torch.equal(items.points[index], pairs.x)
    assert torch.equal(pairs.conditions["labels"], items.labels[index])
    assert pairs.conditions["absent"] is None
    with pytest.raises(UsageError, match="tokens"):
        pair(coupling, normals(50, 16), {"tokens": torch.zeros(50, 4)})


def test_within_classes_the_class_stays(tmp_path):
    items = cloud()
    coupling = prepared(items, tmp_path, draws_per_item=50.0, per_class=True)
    labels = torch.arange(60) % 4
    given = {"labels": labels, "tokens": torch.arange(60)}
    pairs = pair(coupling, normals(60, 16), given)
    index = (pairs.x[:, None] == items.points[None]).all(2).float().argmax(1)
    assert torch.equal(items.labels[index], labels)
    assert pairs.conditions == given
    # every class has a potential of its own
    e = normals(20_000, 16)
    found = pair(coupling, e, {"labels": torch.zeros(20_000, dtype=torch.int64)})
    index = (found.x[:, None, :4] == items.points[None, ::4, :4]).all(2).float().argmax(1)
    won = torch.bincount(index, minlength=50)
    assert marginal_error(won) < 0.1
    with pytest.raises(UsageError, match="class numbers"):
        prepared(Cloud(items.points), tmp_path, per_class=True)


def test_a_potential_is_learned_once_and_read_afterwards(tmp_path):
    items = cloud()
    first = prepared(items, tmp_path, draws_per_item=20.0)
    (folder,) = tmp_path.iterdir()
    written = (folder / "potential.npz").stat().st_mtime_ns
    again = prepared(items, tmp_path, draws_per_item=20.0)
    assert (folder / "potential.npz").stat().st_mtime_ns == written
    assert list(tmp_path.iterdir()) == [folder]
    e = normals(100, 16)
    assert torch.equal(pair(first, e).x, pair(again, e).x)
    assert first.record() == again.record()
    # other data, another source or other arguments have another one
    prepared(Cloud(items.points, items.labels, "other"), tmp_path, draws_per_item=20.0)
    prepared(items, tmp_path, draws_per_item=10.0)
    assert len(list(tmp_path.iterdir())) == 3


def test_it_is_the_same_whoever_learns_it(tmp_path):
    items = cloud()
    a, b = (prepared(items, tmp_path / n, draws_per_item=20.0) for n in ("a", "b"))
    e = normals(100, 16)
    assert torch.equal(pair(a, e).x, pair(b, e).x)


def test_a_stale_potential_is_refused(tmp_path):
    items = cloud()
    prepared(items, tmp_path, draws_per_item=5.0)
    (folder,) = tmp_path.iterdir()
    manifest = folder / "potential.json"
    record = json.loads(manifest.read_text())
    record["identity"]["data"] = "other"
    manifest.write_text(json.dumps(record))
    with pytest.raises(UsageError, match="other data") as refused:
        prepared(items, tmp_path, draws_per_item=5.0)
    assert refused.value.key == "coupling.directory"


def test_a_half_written_potential_is_learned_anew(tmp_path):
    items = cloud()
    first = prepared(items, tmp_path, draws_per_item=5.0)
    (folder,) = tmp_path.iterdir()
    (folder / "potential.json").unlink()
    (folder / "potential.npz").write_bytes(b"half")
    again = prepared(items, tmp_path, draws_per_item=5.0)
    e = normals(100, 16)
    assert torch.equal(pair(first, e).x, pair(again, e).x)


def test_the_choice_is_the_same_in_pieces(monkeypatch):
    items, rows = cloud(), torch.arange(200)
    offsets = normals(200, 1).flatten()
    e = normals(30, 16)
    whole = best_items(e, items, rows, offsets, k=2)
    monkeypatch.setattr("flowexp.couplings.semidiscrete._ITEMS_AT_ONCE", 7)
    parts = best_items(e, items, rows, offsets, k=2)
    assert torch.equal(whole[1], parts[1])
    direct = (2.0 * e @ items.points.T + offsets).argmax(1)
    assert torch.equal(whole[1][:, 0], direct)


@pytest.mark.statistical
def test_many_items_start_from_an_eighth_of_them():
    """2048 points near a circle, where distant items compete through many others: with 20 draws per
    item the error is 0.5 from that start, above 1.5 from zero (the same draws)."""
    angle = 2.0 * math.pi * torch.rand(2048, generator=generator(0, "angle"))
    noise = 0.1 * torch.randn(2048, 2, generator=generator(1, "noise"))
    items = Cloud(torch.stack([angle.cos(), angle.sin()], dim=1) + noise)
    rows = torch.arange(2048)

    def draw(number, count):
        return torch.randn(count, 2, generator=generator(3, "plane", number))

    offsets = fit_potential(draw, items, rows, draws=20 * 2048, device=CPU)
    won = best_items(normals(20_000, 2), items, rows, offsets)[1].flatten()
    assert marginal_error(torch.bincount(won, minlength=2048)) < 1.0


def test_one_item_gets_everything(tmp_path):
    coupling = prepared(Cloud(torch.ones(1, 3)), tmp_path)
    assert torch.equal(pair(coupling, normals(5, 3)).x, torch.ones(5, 3))


def test_marginal_error_is_unbiased():
    assert marginal_error(torch.tensor([50, 0])) == pytest.approx(1.0)
    counts = torch.multinomial(torch.ones(10), 100_000, replacement=True)
    assert abs(marginal_error(torch.bincount(counts, minlength=10))) < 1e-3


def test_impossible_arguments_are_named(tmp_path):
    for number in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="draws_per_item"):
            SemidiscreteOT(directory=str(tmp_path), draws_per_item=number)
    with pytest.raises(ValueError, match="prepare"):
        pair(SemidiscreteOT(directory=str(tmp_path)), normals(4, 2))
