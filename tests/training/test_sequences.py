"""What a training on sequences is given, and where its loss begins."""

import pytest
import torch

from flowexp.couplings import Independent
from flowexp.data import BatchStream, ClassSequences
from flowexp.data.digits import Digits
from flowexp.errors import UsageError
from flowexp.models import FlowModel
from flowexp.networks import ARFlow
from flowexp.objectives import Regression, SquaredL2
from flowexp.objectives.weightings import Uniform as Weights
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import Linear, Path
from flowexp.timesteps import Descending, Uniform
from flowexp.training.inputs import TrainingDraws
from tests.training.tiny import tiny_settings, train

SEQUENCE, BATCH = 5, 40


def model(**options):
    torch.manual_seed(0)
    network = ARFlow(
        img_resolution=8,
        in_channels=1,
        out_channels=1,
        label_dim=10,
        hidden_size=16,
        depth=2,
        num_heads=2,
        sequence=SEQUENCE,
        **options,
    )
    return FlowModel(Path(Linear()), network=network, parameterization=VelocityPrediction())


def draws(rank=0, world_size=1):
    return TrainingDraws(
        Path(Linear()),
        coupling=Independent(),
        timestep=Descending(Uniform(), length=SEQUENCE),
        conditional=True,
        seed=3,
        rank=rank,
        world_size=world_size,
    )


def stream():
    return BatchStream(
        Digits().train(), batch_size=BATCH, seed=3, order=ClassSequences(SEQUENCE), hflip=True
    )


def test_a_batch_holds_one_class_falling_times_and_no_image_twice_per_sequence():
    for step in range(5):
        batch = stream().batch(step)
        pairs, t = draws()(batch, step)
        labels = pairs.conditions["labels"].reshape(-1, SEQUENCE)
        assert (labels == labels[:, :1]).all()
        assert (t.reshape(-1, SEQUENCE).diff(dim=1) < 0).all()
        assert all(len(set(row)) == SEQUENCE for row in batch.index.reshape(-1, SEQUENCE).tolist())
        assert len(set(labels[:, 0].tolist())) > 1


def test_processes_see_the_rows_of_the_whole_batch():
    whole, t = draws()(stream().batch(2), 2)
    parts = [draws(r, 2)(stream().batch(2, rank=r, world_size=2), 2) for r in range(2)]
    assert torch.equal(torch.cat([part[1] for part in parts]), t)
    assert torch.equal(torch.cat([part[0].x for part in parts]), whole.x)
    assert torch.equal(torch.cat([part[0].e for part in parts]), whole.e)


def test_the_loss_begins_at_the_variance_of_noise_and_data():
    pairs, t = draws()(stream().batch(0), 0)
    rng = torch.Generator().manual_seed(0)
    objective = Regression(target="velocity", weighting=Weights(), premetric=SquaredL2())
    found = objective.loss(model(), pairs, t, rng=rng).per_sample.detach()
    expected = (pairs.e - pairs.x).square().flatten(1).mean(1)
    torch.testing.assert_close(found, expected.float())
    assert abs(float(found.mean()) - float(1.0 + pairs.x.square().mean())) < 0.1


def test_micro_batches_of_whole_sequences_have_the_same_gradient(tmp_path):
    options = {
        "dataset": Digits(),
        "timestep": Descending(Uniform(), length=SEQUENCE),
        "order": ClassSequences(SEQUENCE),
    }
    found = []
    for name, micro in (("whole", None), ("parts", 2 * SEQUENCE)):
        settings = tiny_settings(batch_size=BATCH, max_kimg=0.12, micro_batch=micro)
        own = model()
        train(tmp_path / name, model=own, settings=settings, **options)
        found.append(own.network.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-4)


def test_a_batch_that_divides_sequences_among_processes_is_refused():
    settings = tiny_settings(batch_size=30)
    assert settings.share(2, group=SEQUENCE) == 15
    with pytest.raises(UsageError, match="in groups of 5"):
        settings.share(4, group=SEQUENCE)
