import pytest
import torch

from flowexp.config.check import check
from flowexp.config.rules import labels_dropped
from flowexp.objectives.flow_map import DropEach, DropFirst, KeepLabels, Tangent
from tests.objectives.flow_map.labelled import Labelled, batch, leap_of, matching, part_of


def test_each_row_is_dropped_by_its_own_number():
    objective = matching(labels=DropEach(label_dropout=0.4))
    leap = leap_of(objective, Labelled())
    expected = leap.uniforms["labels"][:, 0] < 0.4
    assert expected.any()
    assert not expected.all()
    assert leap.dropped.equal(expected)
    assert leap.conditions["labels"][expected].eq(-1).all()
    assert leap.conditions["labels"][~expected].equal(leap.given["labels"][~expected])
    assert leap.given["labels"].min() == 0


def test_a_window_is_open():
    drop = DropEach(label_dropout=0.999, start=0.3, end=0.7)
    leap = leap_of(matching(labels=drop), Labelled())
    leap.t[:4] = torch.tensor([0.3, 0.7, 0.31, 0.69])
    every = torch.ones_like(leap.t, dtype=torch.bool)
    assert drop.dropped(leap, every).equal((leap.t > 0.3) & (leap.t < 0.7))


def test_rows_with_equal_times_are_dropped_first():
    drop = DropFirst(label_dropout=0.5)
    leap = leap_of(matching(labels=drop), Labelled())
    order = torch.randperm(len(leap.t), generator=torch.Generator().manual_seed(0))
    mixed = leap.rows(order)
    count = int((mixed.uniforms["labels"] < 0.5).sum())
    dropped = drop.dropped(mixed, torch.ones_like(mixed.dropped))
    assert int(dropped.sum()) == count > 4
    assert dropped[mixed.r == mixed.t].all()
    apart = dropped[mixed.r < mixed.t]
    assert apart.equal(torch.arange(len(apart)) < count - 4)


class NoneMayDrop(Tangent):
    def may_drop_label(self, leap):
        return leap.r == leap.t


@pytest.mark.parametrize("law", [DropEach, DropFirst])
def test_a_leg_can_keep_labels(law):
    objective = matching(labels=law(label_dropout=0.99), leg=NoneMayDrop())
    leap = leap_of(objective, Labelled())
    assert leap.dropped.equal(leap.r == leap.t)


def test_nothing_is_dropped_by_default():
    leap = leap_of(matching(), Labelled())
    assert leap.dropped is None
    assert KeepLabels().dropped(leap, leap.t > 0).any().item() is False


def test_captions_are_dropped_too():
    objective = matching(labels=DropEach(label_dropout=0.5))
    pairs, times = batch(objective)
    pairs.conditions["tokens"] = torch.ones(len(times), 2)
    leap = objective.leap(Labelled(), pairs, times, rng=torch.Generator())
    assert leap.conditions["tokens"][leap.dropped].eq(0.0).all()
    assert leap.conditions["tokens"][~leap.dropped].eq(1.0).all()


def test_parts_of_a_batch_are_as_the_whole():
    objective, model = matching(labels=DropEach(label_dropout=0.4)), Labelled()
    pairs, times = batch(objective)
    whole = objective.loss(model, pairs, times, rng=torch.Generator()).per_sample
    halves = [
        objective.loss(model, *part_of(pairs, times, rows), rng=torch.Generator()).per_sample
        for rows in (slice(0, 5), slice(5, None))
    ]
    torch.testing.assert_close(torch.cat(halves), whole)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_bad_input(dropout):
    with pytest.raises(ValueError, match=f"label_dropout is {dropout}"):
        DropEach(label_dropout=dropout)
    with pytest.raises(ValueError, match=r"start is 0.5"):
        DropEach(start=0.5, end=0.5)


OBJECTIVE = ["parameterization=average_velocity", "timestep=sorted", "dataset=digits"]


def test_labels_dropped_by_the_objective_count_as_dropped_in_training():
    kept = check("train", ["objective=meanflow", *OBJECTIVE])
    dropping = check("train", ["objective=meanflow", "objective/labels=drop", *OBJECTIVE])
    assert (kept.problems, dropping.problems) == ([], [])
    assert labels_dropped(kept.config) is False
    assert labels_dropped(dropping.config) is True


def test_labels_are_dropped_in_one_place():
    twice = [*OBJECTIVE, "objective/labels=drop", "network.label_dropout=0.2"]
    (problem,) = check("train", ["objective=meanflow", *twice]).problems
    assert problem.key == "network.label_dropout"
    assert "Set network.label_dropout=0" in str(problem)
    only_network = [*OBJECTIVE, "network.label_dropout=0.2"]
    assert check("train", ["objective=meanflow", *only_network]).problems == []
    (problem,) = check("train", ["objective=meanflow_guided", *only_network]).problems
    assert problem.key == "network.label_dropout"
