"""The variance of the gradient, measured beside a training."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from flowexp.data import DataBatch
from flowexp.seeding import derive_seed
from flowexp.training import GradientVariance
from flowexp.training.module import FlowModule
from tests.training.flow_maps import train_flow_map
from tests.training.test_fit import assert_same_state, rows
from tests.training.test_flow_maps import weights
from tests.training.tiny import tiny_settings, train

DRAWS = 4


class Gradients(Callback):
    """Gradients by the seeds of the diagnostic in the first step, and the step's own."""

    def __init__(self) -> None:
        self.of_draws: list[Tensor] = []
        self.again = self.own = torch.zeros(())

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: FlowModule, batch: DataBatch, batch_idx: int
    ) -> None:
        if pl_module.step == 0:
            seeds = [derive_seed(0, "gradient variance", 0, number) for number in range(DRAWS)]
            self.of_draws = [flat(pl_module.gradient(batch, seed=seed)) for seed in seeds]
            self.again = flat(pl_module.gradient(batch, seed=pl_module.seed))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: FlowModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if pl_module.step == 0:
            self.own = flat([p.grad for p in pl_module.network.parameters()])


def flat(tensors: list[Any]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors]).double()


def test_it_is_the_trace_of_the_covariance_over_the_squared_mean(tmp_path: Path) -> None:
    gradients, measured = Gradients(), GradientVariance(every_kimg=0.048, draws=DRAWS)
    train_flow_map(tmp_path, callbacks={"own": gradients, "measured": measured}, micro_batch=5)
    torch.testing.assert_close(gradients.again, gradients.own, rtol=1e-6, atol=1e-9)
    drawn = torch.stack(gradients.of_draws)
    variance = float(drawn.var(dim=0).sum())
    squared_mean = float(drawn.mean(0).square().sum()) - variance / DRAWS
    first, second = rows(tmp_path)
    assert first["gradient/variance"] == pytest.approx(variance, rel=1e-6)
    assert first["gradient/squared_mean"] == pytest.approx(squared_mean, rel=1e-6)
    relative = first.get("gradient/relative_variance", math.nan)
    assert relative == pytest.approx(variance / squared_mean, rel=1e-6) or squared_mean <= 0.0
    assert second["gradient/variance"] != first["gradient/variance"]  # at 0.048 kimg


def test_a_training_is_the_same_with_and_without_it(tmp_path: Path) -> None:
    """Dropout, a counter among the buffers, and an interruption between measurement and row."""
    measured = partial(GradientVariance, every_kimg=0.08, draws=2)
    settings = tiny_settings(max_kimg=0.16, log_every=4)
    train(tmp_path / "with", settings=settings, callbacks={"it": measured()})
    train(tmp_path / "without", settings=settings)
    first, second = (weights(tmp_path / name) for name in ("with", "without"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    cut = tiny_settings(max_kimg=0.096, log_every=4)
    train(tmp_path / "cut", settings=cut, callbacks={"it": measured()})
    train(tmp_path / "cut", settings=settings, callbacks={"it": measured()})
    assert_same_state(tmp_path / "with", tmp_path / "cut")
    noted = [row for row in rows(tmp_path / "cut") if "gradient/variance" in row]
    assert [row["step"] for row in noted if "partial" not in row] == [4, 8]


@pytest.mark.parametrize("wrong", [{"draws": 1}, {"every_kimg": 0.0}, {"every_kimg": math.inf}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GradientVariance(**wrong)
