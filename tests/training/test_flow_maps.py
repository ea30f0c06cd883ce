"""Flow maps in training: shared, interrupted, in micro-batches, against an average."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback, Trainer

from flowexp.couplings import Pairs
from flowexp.objectives.flow_map import Legs
from flowexp.runs import read_checkpoint
from flowexp.training.module import FlowModule
from flowexp.training.precision import with_precision
from flowexp.training.trial import try_out
from tests.training.flow_maps import flow_map_parts, meanflow, train_flow_map, two_time_model
from tests.training.test_fit import assert_same_state, rows
from tests.two_processes import in_two_processes


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights and averages of a run, by name."""
    content = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    found = {"network": content["network"], **content["ema"]}
    return {f"{of}.{name}": t for of, state in found.items() for name, t in state.items()}


def assert_close(one: Path, other: Path) -> None:
    expected, found = weights(one), weights(other)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training in one process, without interruption, whole batches at a time."""
    folder = tmp_path_factory.mktemp("whole")
    train_flow_map(folder)
    return folder


def train_shared(folder: Path) -> None:
    train_flow_map(folder, devices=2, strategy="ddp", micro_batch=5)


@pytest.mark.slow
def test_two_processes_train_as_one(whole: Path, tmp_path: Path) -> None:
    """Forward-mode differentiation included, and averages as targets."""
    in_two_processes(train_shared, tmp_path)
    assert_close(whole, tmp_path)


def test_micro_batches_are_the_batch(whole: Path, tmp_path: Path) -> None:
    train_flow_map(tmp_path, micro_batch=5)
    assert_close(whole, tmp_path)


def test_an_interrupted_training_ends_the_same(whole: Path, tmp_path: Path) -> None:
    train_flow_map(tmp_path, max_kimg=0.048)
    train_flow_map(tmp_path)
    assert_same_state(whole, tmp_path)
    assert rows(whole)[-1] == rows(tmp_path)[-1]


class Averages(Callback):
    """Looks at the average that is a target, after the last update."""

    def __init__(self) -> None:
        self.seen = False

    def on_train_end(self, trainer: Trainer, pl_module: FlowModule) -> None:
        asked = pl_module.model.average("target").network
        stored = pl_module.averages.state()["target"]
        for full_name, parameter in asked.named_parameters():
            name = full_name.removeprefix("network.")  # under autocast
            assert parameter.data_ptr() == stored[name].data_ptr()
            assert not parameter.requires_grad
            assert not torch.equal(parameter, pl_module.network.get_parameter(name))
        with pytest.raises(KeyError, match="other"):
            pl_module.model.average("other")
        self.seen = True


@pytest.mark.parametrize("settings", [{}, {"channels_last": True}, {"precision": "bf16-mixed"}])
def test_an_average_follows_the_weights(settings: dict[str, object], tmp_path: Path) -> None:
    averages = Averages()
    train_flow_map(tmp_path, callbacks={"it": averages}, max_kimg=0.032, **settings)
    assert averages.seen


def test_the_trial_step_knows_the_averages() -> None:
    try_out(flow_map_parts(), seed=0, config={"seed": 0}, arrays=flow_map_parts().dataset.train())


def test_lower_precision_is_the_networks_alone() -> None:
    """States, times and targets stay float64; the derivative has the rounding of the network."""
    model = two_time_model()
    rng = torch.Generator().manual_seed(0)
    x, e = (torch.randn(8, 1, 4, 4, generator=rng) for _ in range(2))
    times = torch.rand(8, 2, generator=rng, dtype=torch.float64).sort(1, descending=True).values
    objective = meanflow()
    legs = Legs(objective.driver, objective.target, objective.diagonal)
    found = []
    for precision in ("32-true", "bf16-mixed"):
        asked = with_precision(model, precision)
        leap = objective.leap(asked, Pairs(x, e, {}), times, rng=rng)
        assert leap.t.dtype == leap.r.dtype == leap.x_t.dtype == torch.float64
        found.append(objective.leg.compare(asked, leap, legs))
    full, lower = found
    assert lower.target.dtype == lower.prediction.dtype == torch.float64
    error = (lower.target - full.target).std() / full.target.std()
    assert 0.0 < error < 0.05
