"""The training loop: exact resumption, accumulation, records, and how it stops."""

import json
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback, Trainer

from flowexp.couplings import Pairs
from flowexp.errors import UsageError
from flowexp.runs import RunDirectory, read_checkpoint
from flowexp.training import NonFiniteLossError, TrainingInterrupted
from flowexp.training.module import FlowModule
from tests.training.tiny import Squares, tiny_model, tiny_settings, train


class StopAt(Callback):
    """Ends a training in the middle, as a crash would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, pl_module: FlowModule, *_: object) -> None:
        if pl_module.step == self.step:
            raise RuntimeError("power cut")


class SignalAt(StopAt):
    def on_train_batch_end(self, trainer: Trainer, pl_module: FlowModule, *_: object) -> None:
        if pl_module.step == self.step:
            signal.raise_signal(signal.SIGTERM)


def rows(folder: Path) -> list[dict[str, float]]:
    """The recorded rows without wall-clock figures."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    read = [json.loads(line) for line in lines]
    return [
        {k: v for k, v in row.items() if not k.startswith(("time/", "system/"))} for row in read
    ]


def flat(value: object, prefix: str = "") -> dict[str, object]:
    if isinstance(value, dict):
        return {k: v for key in value for k, v in flat(value[key], f"{prefix}/{key}").items()}
    if isinstance(value, list):
        return flat(dict(enumerate(value)), prefix)
    return {prefix: value}


def assert_same_state(first: Path, second: Path) -> None:
    states = [flat(read_checkpoint(f / "checkpoints" / "last.ckpt")) for f in (first, second)]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, states[1][key]), key
        else:
            assert value == states[1][key], key


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(folder / "run")
    return folder / "run"


def test_training_reduces_the_loss_and_reports_it(uninterrupted: Path) -> None:
    losses = [row["train/loss"] for row in rows(uninterrupted)]
    assert losses[-1] < 0.8 * losses[0]
    assert [row["step"] for row in rows(uninterrupted)] == [3, 6, 9, 12, 15, 18, 20]
    assert rows(uninterrupted)[-1]["partial"] is True


@pytest.mark.parametrize("stops", [(1,), (7, 8, 13), (4, 19)])
def test_killed_and_resumed_is_uninterrupted_bit_for_bit(
    uninterrupted: Path, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    for stop in stops:
        with pytest.raises(RuntimeError, match="power cut"):
            train(tmp_path / "run", callbacks={"stop": StopAt(stop)})
    train(tmp_path / "run")
    assert_same_state(uninterrupted, tmp_path / "run")
    assert rows(uninterrupted) == rows(tmp_path / "run")


def test_sigterm_writes_a_checkpoint_at_that_step_and_the_run_continues(
    uninterrupted: Path, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingInterrupted, match="SIGTERM at step 7"):
        train(tmp_path / "run", callbacks={"stop": SignalAt(7)})
    assert signal.getsignal(signal.SIGTERM) is before
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["step"] == 7
    train(tmp_path / "run")
    assert_same_state(uninterrupted, tmp_path / "run")
    assert rows(uninterrupted) == rows(tmp_path / "run")


def test_a_longer_training_continues_a_finished_one(uninterrupted: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", settings=tiny_settings(max_kimg=0.16))
    train(tmp_path / "run")
    assert_same_state(uninterrupted, tmp_path / "run")
    assert rows(uninterrupted) == rows(tmp_path / "run")


def test_a_finished_training_is_not_repeated(uninterrupted: Path) -> None:
    model = tiny_model()
    written = (uninterrupted / "metrics.jsonl").read_text()
    result = train(uninterrupted, model=model)
    stored = read_checkpoint(uninterrupted / "checkpoints" / "last.ckpt")
    assert (uninterrupted / "metrics.jsonl").read_text() == written
    # of the whole training, whenever it was
    spent = json.loads(written.splitlines()[-1])["time/seconds"]
    assert (result.step, result.seconds) == (20, spent)
    assert result.final_loss == rows(uninterrupted)[-1]["train/loss"]
    assert torch.equal(
        model.network.state_dict()["enter.weight"], stored["network"]["enter.weight"]
    )


def test_seeds_and_dropout_matter(uninterrupted: Path, tmp_path: Path) -> None:
    train(tmp_path / "seed", seed=1)
    train(tmp_path / "dropout", model=tiny_model(dropout=0.0))
    reference = rows(uninterrupted)[0]["train/loss"]
    assert rows(tmp_path / "seed")[0]["train/loss"] != reference
    assert rows(tmp_path / "dropout")[0]["train/loss"] != reference


@pytest.mark.parametrize("micro_batch", [1, 5, 8])
def test_accumulation_gives_the_same_training(tmp_path: Path, micro_batch: int) -> None:
    """Without dropout, whose masks depend on the shape, only the rounding differs."""
    for name, micro in (("whole", None), ("parts", micro_batch)):
        train(
            tmp_path / name,
            model=tiny_model(dropout=0.0),
            settings=tiny_settings(micro_batch=micro, max_kimg=0.08),
        )
    whole, parts = (
        read_checkpoint(tmp_path / n / "checkpoints/last.ckpt") for n in ("whole", "parts")
    )
    for name, tensor in whole["network"].items():
        if name != "calls":
            torch.testing.assert_close(tensor, parts["network"][name], rtol=1e-4, atol=1e-5)
    for a, b in zip(rows(tmp_path / "whole"), rows(tmp_path / "parts"), strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-5)
        assert a["train/error"] == pytest.approx(b["train/error"], rel=1e-5)


def test_the_checkpoint_holds_plain_builtins(uninterrupted: Path) -> None:
    content = read_checkpoint(uninterrupted / "checkpoints" / "last.ckpt")
    assert content["config"] == {"seed": 0, "trainer": {"batch_size": 16}}
    assert set(content["ema"]) == {"main", "power"}
    assert "calls" in content["network"]
    assert "calls" not in content["ema"]["main"]
    assert {type(v) for v in flat(content).values()} <= {
        torch.Tensor, int, float, bool, str, type(None), tuple,
    }  # fmt: skip


def test_old_checkpoints_are_removed(uninterrupted: Path, tmp_path: Path) -> None:
    names = {file.name for file in (uninterrupted / "checkpoints").iterdir()}
    assert names == {"last.ckpt", "step-000000020.ckpt"}
    train(tmp_path / "run", settings=tiny_settings(keep_checkpoints=None))
    kept = RunDirectory.open(tmp_path / "run").numbered_checkpoints()
    assert [int(file.stem.removeprefix("step-")) for file in kept] == [4, 8, 12, 16, 20]


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="nan between steps 10 and 12"):
        train(tmp_path / "run", objective=Squares(nan_from=11))
    content = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert content["step"] == 8
    assert all(tensor.isfinite().all() for tensor in content["network"].values())


def test_nan_to_num_goes_on_with_mended_gradients(tmp_path: Path) -> None:
    result = train(
        tmp_path / "run",
        objective=Squares(nan_from=11),
        settings=tiny_settings(nan_to_num=True),
    )
    network = read_checkpoint(result.checkpoint)["network"]
    assert all(tensor.isfinite().all() for tensor in network.values())
    assert rows(tmp_path / "run")[-1]["train/loss"] is None


def test_clipping_bounds_the_gradient(tmp_path: Path) -> None:
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: FlowModule, *_: object) -> None:
            grads = [p.grad.norm() for p in module.network.parameters() if p.grad is not None]
            seen.append(float(torch.stack(grads).norm()))

    train(
        tmp_path / "run",
        settings=tiny_settings(grad_clip=0.01),
        callbacks={"watch": Watch()},
    )
    assert max(seen) <= 0.01 * 1.001


def test_the_learning_rate_follows_the_images_seen_before_the_step(uninterrupted: Path) -> None:
    rates = {row["step"]: row["train/learning_rate"] for row in rows(uninterrupted)}
    assert rates[3] == pytest.approx(1e-2 * 0.032 / 0.1)
    assert rates[6] == pytest.approx(1e-2 * 0.080 / 0.1)
    assert rates[9] == pytest.approx(1e-2)


def test_bf16_reaches_the_network_only(tmp_path: Path) -> None:
    seen = {}

    class Watching(Squares):
        def loss(self, model, pairs: Pairs, t: torch.Tensor, *, rng: torch.Generator):
            # A matrix product outside the network, as a coupling has, must stay in float32.
            seen["outside"] = (pairs.x.flatten(1) @ pairs.e.flatten(1).T).dtype
            hook = model.network.enter.register_forward_hook(
                lambda _m, _i, out: seen.update(inside=out.dtype)
            )
            try:
                return super().loss(model, pairs, t, rng=rng)
            finally:
                hook.remove()

    train(
        tmp_path / "run",
        objective=Watching(),
        settings=tiny_settings(precision="bf16-mixed", max_kimg=0.032),
    )
    assert seen == {"outside": torch.float32, "inside": torch.bfloat16}


def test_float16_needs_cuda(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"trainer\.precision: 16-mixed is not available on cpu"):
        train(tmp_path / "run", settings=tiny_settings(precision="16-mixed"))


def test_loss_scaling_gives_the_same_gradients_and_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU in place of CUDA; clipping sees unscaled gradients."""
    scalers: list[torch.amp.GradScaler] = []

    on_cpu = partial(torch.amp.GradScaler, "cpu", init_scale=2.0**14, growth_interval=4)

    def scaler(_device: str) -> torch.amp.GradScaler:
        scalers.append(on_cpu())
        return scalers[-1]

    monkeypatch.setattr("flowexp.training.module.check_precision", lambda *_: None)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    monkeypatch.setattr("flowexp.training.precision._AUTOCAST", {})
    for precision in ("32-true", "16-mixed"):
        settings = tiny_settings(precision=precision, grad_clip=0.1, max_kimg=0.16)
        train(tmp_path / precision, settings=settings)
    plain, scaled = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")
        for name in ("32-true", "16-mixed")
    )
    assert plain["scaler"] is None
    assert scaled["scaler"]["scale"] > 2.0**14
    for name, tensor in plain["ema"]["main"].items():
        torch.testing.assert_close(scaled["ema"]["main"][name], tensor, rtol=1e-4, atol=1e-6)
    settings = tiny_settings(precision="16-mixed", grad_clip=0.1, max_kimg=0.176)
    train(tmp_path / "16-mixed", settings=settings)
    assert scalers[-1].get_scale() == scaled["scaler"]["scale"]


def test_no_labels_reach_an_unconditional_network(tmp_path: Path) -> None:
    model = tiny_model()
    model.network.label_dim = 0
    labels = []
    model.network.label.register_forward_hook(lambda _m, args, _o: labels.append(args[0]))
    train(tmp_path / "run", model=model, settings=tiny_settings(max_kimg=0.016))
    assert set(torch.cat(labels).tolist()) == {0}


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UsageError, match=r"trainer\.batch_size: 16 images .* multiple of 3"):
        tiny_settings().share(3)
    assert tiny_settings().share(4) == 4


def test_another_seed_does_not_continue_a_run(tmp_path: Path) -> None:
    train(tmp_path / "run", settings=tiny_settings(max_kimg=0.064))
    with pytest.raises(UsageError, match=r"seed: 0 -> 1"):
        train(tmp_path / "run", seed=1)


def test_a_damaged_last_checkpoint_is_named(tmp_path: Path) -> None:
    train(tmp_path / "run", settings=tiny_settings(max_kimg=0.064))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UsageError, match=r"dirs\.run: .*last\.ckpt cannot be read"):
        train(tmp_path / "run")
