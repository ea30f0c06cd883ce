"""The refiner's loss: what it is zero for, what is drawn, which labels are dropped."""

import pytest
import torch

from flowexp.couplings import Pairs
from flowexp.models import FlowModel, Model
from flowexp.networks.mlp import MLP
from flowexp.objectives import VelocityRefinement
from flowexp.parameterizations import VelocityIncrement
from flowexp.paths import VP, Linear, Path, Prediction
from tests.refusals import refusal_of
from tests.samplers.closed_forms import MixtureModel

PATH = Path(Linear())


def mixture():
    return MixtureModel(PATH, [0.5, 0.5], [[1.0, -0.5], [-1.0, 0.5]], [[0.6, 0.8], [0.7, 0.5]])


def batch(size=8, labels=None):
    rng = torch.Generator().manual_seed(1)
    x, e = (torch.randn(size, 2, dtype=torch.float64, generator=rng) for _ in range(2))
    t = torch.rand(size, dtype=torch.float64, generator=rng)
    return Pairs(x=x, e=e, conditions={} if labels is None else {"labels": labels}), t


def loss(objective, model, pairs, t, seed=0):
    return objective.loss(model, pairs, t, rng=torch.Generator().manual_seed(seed)).per_sample


class Recorded(Model):
    """Predicts the mixture's velocity, or the velocity it is given, and keeps its inputs."""

    def __init__(self, *, refines):
        self.inner, self.refines, self.received = mixture(), refines, []
        self.path, self.time_range = PATH, (0.0, 1.0)

    def predict(self, x_t, t, **conditions):
        self.received.append((x_t, t, conditions))
        if self.refines:
            return Prediction.of_velocity(PATH, x_t, t, conditions["velocity"])
        return self.inner.predict(x_t, t)


def test_zero_for_a_refiner_that_knows_the_teacher():
    class Exact(Model):
        path, time_range = PATH, (0.0, 1.0)

        def predict(self, x_t, t, *, velocity, **conditions):
            return mixture().predict(x_t, t)

    pairs, t = batch()
    assert float(loss(VelocityRefinement(teacher=mixture()), Exact(), pairs, t).max()) == 0.0


def test_a_network_that_starts_at_zero_leaves_the_change_of_the_velocity():
    teacher, student = Recorded(refines=False), Recorded(refines=True)
    pairs, t = batch()
    values = loss(VelocityRefinement(teacher=teacher), student, pairs, t)
    (x_t, times, _), (moved, later, _) = teacher.received
    change = mixture().velocity(moved, later) - mixture().velocity(x_t, times)
    torch.testing.assert_close(values.double(), change.square().mean(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        moved, x_t - (times - later)[:, None] * mixture().velocity(x_t, times), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("shared", [True, False])
def test_steps_are_shared_or_drawn_per_sample_and_stay_in_range(shared):
    teacher = Recorded(refines=False)
    objective = VelocityRefinement(teacher=teacher, shared_dt=shared, max_dt=0.2)
    pairs, t = batch(64)
    loss(objective, Recorded(refines=True), pairs, t.clamp(min=0.3))
    dt = teacher.received[0][1] - teacher.received[1][1]
    assert (len(torch.unique(dt.round(decimals=12))) == 1) == shared
    assert float(dt.min()) >= 0.0
    assert float(dt.max()) <= 0.2


def test_times_below_the_data_end_only_if_not_clipped():
    pairs, _ = batch()
    t = torch.full((8,), 1e-3, dtype=torch.float64)
    for clip in (True, False):
        teacher = Recorded(refines=False)
        loss(VelocityRefinement(teacher=teacher, clip=clip), Recorded(refines=True), pairs, t)
        assert (float(teacher.received[1][1].min()) >= 0.0) == clip


@pytest.mark.parametrize("kept", [False, True])
def test_labels_are_dropped_together(kept):
    labels = torch.arange(1000) % 7
    pairs, t = batch(1000, labels)
    teacher, student = Recorded(refines=False), Recorded(refines=True)
    objective = VelocityRefinement(teacher=teacher, label_dropout=0.3, first_label_kept=kept)
    loss(objective, student, pairs, t)
    first, second = (call[2]["labels"] for call in teacher.received)
    assert torch.equal(second, student.received[0][2]["labels"])
    dropped = second == -1
    # 1000 draws with p = 0.3: 4 standard deviations are 0.058; false alarms 6e-5, with a fixed seed
    assert abs(float(dropped.double().mean()) - 0.3) < 0.058
    assert torch.equal(second[~dropped], labels[~dropped])
    assert torch.equal(first, labels if kept else second)


def test_only_the_refiner_is_trained():
    torch.manual_seed(0)
    network = MLP(in_channels=4, out_channels=2, hidden=8, depth=1)
    refiner = FlowModel(PATH, network=network, parameterization=VelocityIncrement())
    pairs, t = batch()
    loss(VelocityRefinement(teacher=mixture()), refiner, pairs, t).mean().backward()
    assert any(float(p.grad.abs().max()) > 0 for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("name", "value"), [("max_dt", 0.0), ("max_dt", 1.0), ("label_dropout", 1)]
)
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        VelocityRefinement(teacher=mixture(), **{name: value})


def test_a_teacher_of_another_path_is_refused():
    objective = VelocityRefinement(teacher=mixture())
    assert refusal_of(objective, path=Path(Linear())) is None
    assert "refines a teacher on" in refusal_of(objective, path=Path(VP()))


def test_a_refiner_cannot_be_sampled_from():
    network = MLP(in_channels=4, out_channels=2, hidden=8, depth=1)
    refiner = FlowModel(PATH, network=network, parameterization=VelocityIncrement())
    with pytest.raises(ValueError, match="needs the condition velocity"):
        refiner.velocity(torch.zeros(1, 2), torch.tensor(0.5))
