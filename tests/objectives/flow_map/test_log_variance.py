"""The learned log-variance: its minimum, its registration, and that a training resumes with it."""

import pytest
import torch

from flowexp.models import FlowModel
from flowexp.networks import MLP
from flowexp.objectives import FlowMapMatching, SumOfSquares, WeightedSum
from flowexp.objectives.flow_map import DataVelocity, Lagrangian, LearnedLogVariance
from flowexp.parameterizations import EulerJump, FlowMap, VelocityPrediction
from flowexp.paths import Linear, Path
from flowexp.runs import read_checkpoint
from flowexp.timesteps import Sorted, Uniform
from tests.objectives.flow_map.rows import analytic, batch, compared, objective
from tests.training.tiny import tiny_settings, train


def lsd():
    return FlowMapMatching(
        driver=DataVelocity(),
        leg=Lagrangian(),
        premetric=SumOfSquares(factor=1.0),
        error_weight=LearnedLogVariance(channels=16),
    )


def test_at_first_it_is_the_error_itself():
    leap, comparison, _ = compared(objective(DataVelocity(), Lagrangian()), analytic(), *batch())
    error = torch.linspace(0.1, 8.0, len(leap.t), dtype=torch.float64)
    assert torch.equal(LearnedLogVariance()(error, leap, comparison), error)


def test_it_learns_the_logarithm_of_the_mean_error():
    """e^{-w} D + w is least at w = ln E[D], where it is 1 + ln E[D]."""
    leap, comparison, _ = compared(objective(DataVelocity(), Lagrangian()), analytic(), *batch())
    error = torch.exp(1.5 + leap.t + leap.r)
    weight = LearnedLogVariance(channels=32)
    optimizer = torch.optim.LBFGS(weight.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = weight(error, leap, comparison).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(
        weight.log_variance(leap.t, leap.r).double(), error.log(), rtol=0.0, atol=0.02
    )
    least = 1.0 + error.log().mean()
    assert closure().item() == pytest.approx(least.item(), abs=1e-3)


def test_objectives_say_what_they_learn():
    learned = lsd()
    assert learned.learned is learned.error_weight
    assert objective(DataVelocity(), Lagrangian()).learned is None
    assert WeightedSum(parts={"plain": objective(DataVelocity(), Lagrangian())}).learned is None
    together = WeightedSum(parts={"first": learned, "second": lsd()}).learned
    assert [name for name, _ in together.named_parameters()] == [
        "first.linear.weight",
        "second.linear.weight",
    ]


class Flat(MLP):
    """An MLP on 4 x 4 pictures."""

    def forward(self, x, *others, **named):
        return super().forward(x.flatten(1), *others, **named).reshape(x.shape)


def trained(folder, *, max_kimg, **settings):
    """The checkpoint of a small LSD training, which continues what is in the folder."""
    torch.manual_seed(0)
    network = Flat(in_channels=16, out_channels=16, hidden=8, depth=1, scalars=["gap"])
    rule = FlowMap(of=VelocityPrediction(), jump=EulerJump())
    model = FlowModel(Path(Linear()), network=network, parameterization=rule)
    result = train(
        folder,
        model=model,
        settings=tiny_settings(max_kimg=max_kimg, **settings),
        objective=lsd(),
        timestep=Sorted(Uniform(), diagonal=0.75),
    )
    return read_checkpoint(result.checkpoint)


def test_a_training_that_is_continued_ends_with_the_same_weights(tmp_path):
    """All of them, and the optimizer's state of the log-variance too; it has moved."""
    whole = trained(tmp_path / "whole", max_kimg=0.128)
    trained(tmp_path / "parts", max_kimg=0.064)
    parts = trained(tmp_path / "parts", max_kimg=0.128)
    assert whole["step"] == parts["step"] == 8
    assert whole["objective"]["linear.weight"].abs().max() > 1e-3
    for name in ("objective", "network"):
        assert whole[name].keys() == parts[name].keys()
        assert all(torch.equal(whole[name][key], parts[name][key]) for key in whole[name])
    moments = [s["optimizer"]["state"] for s in (whole, parts)]
    count = len(whole["network"]) + 1
    assert len(moments[0]) == len(moments[1]) <= count
    for key in moments[0]:
        assert torch.equal(moments[0][key]["exp_avg"], moments[1][key]["exp_avg"])
