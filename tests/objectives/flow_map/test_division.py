"""Laws over the rows of a batch do not depend on how the batch is divided."""

import pytest
import torch

from flowexp.couplings import Independent
from flowexp.data import BatchStream
from flowexp.objectives.flow_map import BoundaryRows, DropFirst, UniformLeaps
from flowexp.paths import Linear, Path
from flowexp.timesteps import AtBoundary, Sorted, Uniform
from flowexp.training.inputs import TrainingDraws
from flowexp.training.module import micro_batches
from tests.objectives.flow_map.labelled import Labelled, matching
from tests.training.tiny import Tiles

N, BOUNDARY = 16, 0.5
BATCHES = BatchStream(Tiles().train(), batch_size=N, seed=0, hflip=False)


def dropping():
    return matching(labels=DropFirst(label_dropout=0.4))


def with_boundary():
    return matching(leap_weight=BoundaryRows(of=UniformLeaps(), at=BOUNDARY, weight=0.1))


def leaps(objective, law, *, world_size=1, micro_batch=None):
    """The rows of a step's batch, in the parts in which they are evaluated."""
    for rank in range(world_size):
        draws = TrainingDraws(
            Path(Linear()),
            coupling=Independent(),
            timestep=law,
            conditional=True,
            seed=3,
            uniforms=objective.uniforms,
            rank=rank,
            world_size=world_size,
        )
        batch = BATCHES.batch(2, rank=rank, world_size=world_size)
        for pairs, times in micro_batches(*draws(batch, 2), micro_batch):
            yield objective.leap(Labelled(), pairs, times, rng=torch.Generator())


DIVISIONS = [{"micro_batch": 5}, {"world_size": 2}, {"world_size": 4, "micro_batch": 3}]


@pytest.mark.parametrize("division", DIVISIONS)
def test_the_same_rows_drop_their_labels(division):
    objective, law = dropping(), Sorted(Uniform(), diagonal=0.25)
    (whole,) = leaps(objective, law)
    parts = list(leaps(objective, law, **division))
    assert len(parts) > 1
    assert torch.cat([part.dropped for part in parts]).equal(whole.dropped)
    labels = torch.cat([part.conditions["labels"] for part in parts])
    assert labels.equal(whole.conditions["labels"])
    drawn = int((whole.uniforms["labels"] < 0.4).sum())
    assert 4 < int(whole.dropped.sum()) == drawn < N
    assert whole.dropped[whole.r == whole.t].all()


@pytest.mark.parametrize("division", DIVISIONS)
def test_boundary_rows_have_one_mean_over_the_batch(division):
    """Three of 16 rows are on the boundary, which no division into equal parts spreads evenly."""
    objective = with_boundary()
    law = AtBoundary(Uniform(low=BOUNDARY, high=1.0), value=BOUNDARY, share=0.2)

    def weights(**division):
        found = leaps(objective, law, **division)
        return torch.cat(
            [leap.over_batch(lambda r: objective.leap_weight(r, None)) for leap in found]
        )

    (whole,) = leaps(objective, law)
    count = int((whole.t <= BOUNDARY + 2e-8).sum())
    assert count == 3
    expected = torch.where(whole.t <= BOUNDARY + 2e-8, 0.1 * N / count, N / (N - count))
    torch.testing.assert_close(weights(), expected.double(), rtol=1e-6, atol=0.0)
    assert weights(**division).equal(weights())


def test_rows_of_a_part_keep_their_places():
    objective, law = dropping(), Sorted(Uniform(), diagonal=0.25)
    (whole,) = leaps(objective, law)
    chosen = torch.tensor([7, 2])
    labels = objective.labels
    found = whole.rows(chosen).over_batch(lambda r: labels.dropped(r, torch.ones_like(r.t) > 0))
    assert found.equal(whole.dropped[chosen])


def test_columns_of_the_random_numbers_are_those_of_the_whole_batch_too():
    """A sum of objectives gives each part columns of its own."""
    objective, law = dropping(), Sorted(Uniform())
    draws = TrainingDraws(
        Path(Linear()),
        coupling=Independent(),
        timestep=law,
        conditional=True,
        seed=3,
        uniforms=2,
    )
    pairs, times = draws(BATCHES.batch(0), 0)
    for number in range(2):
        own = pairs.with_uniforms(number, 1)
        leap = objective.leap(Labelled(), own, times, rng=torch.Generator())
        assert leap.uniforms["labels"].equal(pairs.uniforms[:, [number]])
        assert leap.whole.uniforms["labels"].equal(pairs.uniforms[:, [number]])
