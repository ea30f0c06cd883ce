"""The dynamic programme against brute force, and the grid that looks up stored costs."""

import itertools
import json

import numpy as np
import pytest
import torch

from flowexp.guidance import ClassifierFree
from flowexp.models import Origin
from flowexp.paths import VE, Linear, Path
from flowexp.samplers import BellmanGrid, Euler
from flowexp.samplers.bellman import least_cost_path
from flowexp.samplers.stored_calibrations import identity_of
from tests.samplers.closed_forms import MixtureModel

COUNT = 9


def random(seed, count):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(count, count, dtype=torch.float64, generator=rng)


def matrix(seed, *, count=COUNT):
    cost = random(seed, count)
    # nothing below is to be read
    return cost.masked_fill(torch.ones_like(cost).tril().bool(), float("nan"))


def brute_force(cost, edges):
    last = len(cost) - 1
    paths = [(0, *c, last) for c in itertools.combinations(range(1, last), edges - 1)]
    sums = [sum(float(cost[a, b]) for a, b in itertools.pairwise(p)) for p in paths]
    best = min(range(len(paths)), key=sums.__getitem__)
    return list(paths[best]), sums[best]


@pytest.mark.parametrize("edges", [1, 2, 3, 4, COUNT - 1])
@pytest.mark.parametrize("seed", range(5))
def test_equals_brute_force(seed, edges):
    cost = matrix(seed)
    path, total = least_cost_path(cost, edges)
    expected_path, expected = brute_force(cost, edges)
    assert path == expected_path
    assert total == pytest.approx(expected, rel=1e-14)
    assert total == pytest.approx(sum(float(cost[a, b]) for a, b in itertools.pairwise(path)))


def test_of_equal_paths_the_shortest_steps_come_first():
    assert least_cost_path(torch.zeros(6, 6), 3) == ([0, 1, 2, 5], 0.0)


def test_more_steps_cost_no_more_where_unit_steps_are_free():
    # the later a step begins, the less it costs
    cost = random(3, 30).triu(2).flip(0).cumsum(0).flip(0)
    totals = [least_cost_path(cost, edges)[1] for edges in range(1, 30)]
    assert all(b <= a for a, b in itertools.pairwise(totals))
    assert totals[0] == float(cost[0, 29])
    assert least_cost_path(cost, 29) == (list(range(30)), 0.0)


@pytest.mark.parametrize(
    ("cost", "edges", "told"),
    [
        (torch.zeros(3, 4), 1, r"\(3, 4\)"),
        (torch.zeros(3), 1, r"\(3,\)"),
        (torch.zeros(4, 4), 0, "edges is 0; 4 points allow 1 to 3"),
        (torch.zeros(4, 4), 4, "edges is 4"),
        (torch.full((4, 4), float("nan")), 2, "not finite"),
    ],
)
def test_what_has_no_path_is_refused(cost, edges, told):
    with pytest.raises(ValueError, match=told):
        least_cost_path(cost, edges)


def model(tmp_path, *, path=None, sha="abc", run="run"):
    found = MixtureModel(path or Path(Linear()), [1.0], torch.zeros(1, 2), 0.5)
    found.origin = Origin(sha, "main", tmp_path / run / "calibrations")
    return found


def store(of, name="costs", *, points=COUNT, **settings):
    folder = of.origin.calibrations / "boss"
    folder.mkdir(parents=True, exist_ok=True)
    times = np.linspace(1.0, 0.0, points) ** 1.5
    np.savez(folder / f"{name}.npz", times=times, cost=matrix(0, count=points).numpy())
    manifest = {"identity": identity_of(of), "settings": settings}
    (folder / f"{name}.json").write_text(json.dumps(manifest))
    return times


def test_the_grid_is_the_best_path_through_the_stored_times(tmp_path):
    of = model(tmp_path)
    times = store(of)
    for steps in (1, 3, COUNT - 1):
        expected = times[least_cost_path(matrix(0), steps)[0]]
        np.testing.assert_array_equal(BellmanGrid().times(of, steps).numpy(), expected)
    samples = Euler(steps=3, time_grid=BellmanGrid()).sample(of, torch.zeros(2, 2))
    assert samples.nfe.tolist() == [3, 3]


def test_more_steps_than_the_fine_grid_are_refused(tmp_path):
    of = model(tmp_path)
    store(of)
    with pytest.raises(ValueError, match=r"steps is 9, but the grid of costs has 8 steps"):
        BellmanGrid().times(of, COUNT)


def test_costs_must_be_there_and_belong_to_the_model(tmp_path):
    stranger = MixtureModel(Path(Linear()), [1.0], torch.zeros(1, 2), 0.5)
    with pytest.raises(ValueError, match="does not come from a run"):
        BellmanGrid().times(stranger, 2)
    of = model(tmp_path)
    with pytest.raises(ValueError, match=r"flowexp calibrate run=.*/run for=boss"):
        BellmanGrid().times(of, 2)
    store(of)
    with pytest.raises(ValueError, match="weights_sha256 abc, not def"):
        BellmanGrid().times(model(tmp_path, sha="def"), 2)
    with pytest.raises(ValueError, match="path"):
        BellmanGrid().times(model(tmp_path, path=Path(VE(t_min=0.002, t_max=1.0))), 2)
    with pytest.raises(ValueError, match="no calibration 'others'"):
        BellmanGrid(calibration="others").times(of, 2)


def test_of_several_that_fit_one_must_be_named(tmp_path):
    of = model(tmp_path)
    store(of)
    times = store(of, "finer", points=12)
    with pytest.raises(ValueError, match=r"sampler.time_grid.calibration=NAME"):
        BellmanGrid().times(of, 2)
    assert len(BellmanGrid(calibration="finer").times(of, 11)) == len(times)


def test_costs_of_a_guided_model_do_not_serve_the_plain_one_unasked(tmp_path):
    of = model(tmp_path)
    store(of, "plain", evaluations_per_call=1)
    store(of, "guided", points=12, evaluations_per_call=2)
    guided = ClassifierFree(scale=2.0).wrap(of)
    with pytest.raises(ValueError, match="steps is 9, but the grid of plain"):
        BellmanGrid().times(of, COUNT)
    assert len(BellmanGrid().times(guided, COUNT)) == COUNT + 1
    assert len(BellmanGrid(calibration="guided").times(of, COUNT)) == COUNT + 1
    (of.origin.calibrations / "boss" / "guided.json").unlink()
    with pytest.raises(ValueError, match="plain was measured with 1 evaluations per call"):
        BellmanGrid().times(guided, 2)


def test_costs_of_another_run_are_compared_by_path_only(tmp_path):
    teacher = model(tmp_path)
    store(teacher)
    student = model(tmp_path, sha="def", run="student")
    grid = BellmanGrid(run=str(tmp_path / "run"))
    assert torch.equal(grid.times(student, 3), BellmanGrid().times(teacher, 3))
    with pytest.raises(ValueError, match="path"):
        grid.times(model(tmp_path, path=Path(VE(t_min=0.002, t_max=1.0))), 3)
