"""Weights that are not finite never replace good ones, and the run says so."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn

from flowexp.errors import UsageError
from flowexp.files import write_torch
from flowexp.runs import RunDirectory, read_checkpoint
from flowexp.runs.weights import not_finite
from flowexp.training import NonFiniteWeightsError
from flowexp.training.module import FlowModule
from tests.training.test_fit import assert_same_state, flat
from tests.training.tiny import tiny_model, tiny_settings, train
from tests.two_processes import in_two_processes

Spoil = Callable[[FlowModule], Tensor]

# step-4 and step-8 are written; what is spoilt after step 9 is found at step 12, or at the end.
SPOILT: dict[str, tuple[Spoil, str]] = {
    "weight": (lambda m: m.network.leave.weight, "leave.weight"),
    "average": (
        lambda m: m.averages.state()["power"]["time.bias"],
        "time.bias in the average power",
    ),
    "optimizer": (
        lambda m: m.optimizer.state[m.network.time.weight]["exp_avg_sq"],
        "exp_avg_sq of time.weight in the optimizer",
    ),
}


class SpoilAt(Callback):
    """Puts one number that is not finite into a tensor, after which no loss need show it."""

    def __init__(self, step: int, what: Spoil, value: float = math.nan) -> None:
        self.step, self.what, self.value = step, what, value

    def on_train_batch_end(self, trainer: Trainer, pl_module: FlowModule, *_: object) -> None:
        if pl_module.step == self.step:
            tensor = self.what(pl_module).detach()
            tensor[(0,) * tensor.dim()] = self.value


def tensors(file: Path) -> list[Tensor]:
    values = flat(read_checkpoint(file)).values()
    return [v for v in values if isinstance(v, Tensor) and v.is_floating_point()]


def assert_kept(folder: Path, step: int) -> None:
    """The newest checkpoint is that of a step, under both names, and finite."""
    run = RunDirectory.open(folder)
    assert run.numbered_checkpoints() == [folder / f"checkpoints/step-{step:09d}.ckpt"]
    assert read_checkpoint(folder / "checkpoints/last.ckpt")["step"] == step
    assert all(t.isfinite().all() for t in tensors(run.checkpoint()))


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("kind", SPOILT)
def test_the_last_good_checkpoint_stays(kind: str, value: float, tmp_path: Path) -> None:
    what, named = SPOILT[kind]
    # Dead weights: a loss that never sees them.
    spoil = SpoilAt(12, what, value)
    good = r"the last good checkpoint is .*last\.ckpt"
    with pytest.raises(
        NonFiniteWeightsError, match=rf"at step 12 \(0\.192 kimg\).*{good}"
    ) as caught:
        train(tmp_path / "run", callbacks={"spoil": spoil})
    assert str(caught.value).startswith(f"{named} is not finite")
    assert_kept(tmp_path / "run", 8)


@pytest.mark.parametrize("nan_to_num", [False, True])
def test_the_last_step_counts_as_well(nan_to_num: bool, tmp_path: Path) -> None:
    spoil = SpoilAt(20, lambda m: m.network.enter.bias)
    settings = tiny_settings(nan_to_num=nan_to_num)
    with pytest.raises(NonFiniteWeightsError, match=r"^enter\.bias is not finite at step 20 "):
        train(tmp_path / "run", settings=settings, callbacks={"spoil": spoil})
    assert_kept(tmp_path / "run", 16)


def test_the_run_continues_from_there_as_if_nothing_had_been(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteWeightsError):
        train(tmp_path / "run", callbacks={"spoil": SpoilAt(12, SPOILT["average"][0])})
    train(tmp_path / "run")
    train(tmp_path / "whole")
    assert_same_state(tmp_path / "run", tmp_path / "whole")


def test_a_first_step_that_overflows_leaves_no_checkpoint(tmp_path: Path) -> None:
    adam = partial(torch.optim.Adam, lr=1e38)
    settings = tiny_settings(max_kimg=0.016, log_every=50)
    with pytest.raises((NonFiniteWeightsError, RuntimeError), match="last good checkpoint is none"):
        train(
            tmp_path / "run",
            optimizer=lambda parameters: adam([*parameters]),
            settings=settings,
            callbacks={"spoil": SpoilAt(1, lambda m: m.network.time.bias, math.inf)},
        )
    assert RunDirectory(tmp_path / "run").latest_checkpoint() is None


def test_a_checkpoint_of_an_earlier_version_is_not_continued(tmp_path: Path) -> None:
    """It could hold nan; the message names the newest one that does not."""
    folder = tmp_path / "run"
    train(folder, settings=tiny_settings(max_kimg=0.128, keep_checkpoints=2))
    for name in ("last", "step-000000008"):
        file = folder / f"checkpoints/{name}.ckpt"
        content = read_checkpoint(file)
        content["network"]["enter.bias"][0] = math.nan
        write_torch(file, content)
    for kimg in (0.128, 0.32):  # finished, and to be continued
        with pytest.raises(UsageError, match=r"enter\.bias is not.*good.*step-000000004\.ckpt"):
            train(folder, settings=tiny_settings(max_kimg=kimg))


def shared(folder: Path, spoilt_rank: int) -> None:
    """Weights that differ between processes must not leave one of them waiting for the other."""

    def spoil(module: FlowModule) -> Tensor:
        weight = module.network.leave.weight
        return weight if module.global_rank == spoilt_rank else torch.zeros(1)

    settings = tiny_settings(devices=2, strategy="ddp", log_every=50)
    with pytest.raises(NonFiniteWeightsError, match="not finite at step 12 "):
        train(
            folder,
            model=tiny_model(dropout=0.0),
            settings=settings,
            callbacks={"spoil": SpoilAt(12, spoil)},
        )


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_stop_together(rank: int, tmp_path: Path) -> None:
    in_two_processes(shared, tmp_path / "run", rank)
    assert_kept(tmp_path / "run", 8)


def test_large_numbers_are_finite() -> None:
    huge = {"a": torch.full((1000,), 3e38), "b": torch.tensor(6e4, dtype=torch.float16).expand(99)}
    whole = {"count": torch.tensor(3), "empty": torch.empty(0), **huge}
    assert not_finite(whole) is None
    assert not_finite({}) is None
    for value in (math.nan, math.inf, -math.inf):
        bad = nn.Parameter(torch.tensor([[1.0, value]], dtype=torch.bfloat16))
        assert not_finite({**whole, "bad": bad, "worse": bad}) == "bad"
