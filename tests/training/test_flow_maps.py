"""Flow maps in training: shared, interrupted, in micro-batches, against an average."""

from pathlib import Path

import pytest
import torch

from flowexp.runs import read_checkpoint
from tests.training.flow_maps import train_flow_map
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
