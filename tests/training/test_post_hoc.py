"""Averages made of the snapshots of a training."""

import pytest
import torch

from flowexp.errors import UsageError
from flowexp.evaluation import PostHoc
from flowexp.runs import RunDirectory, read_checkpoint
from flowexp.runs.weights import stored_weights
from flowexp.training import HalfLifeEMA, PowerEMA
from flowexp.training.post_hoc import reconstruct
from tests.training.tiny import tiny_settings, train

EMAS = {
    "half_life": HalfLifeEMA(half_life_kimg=0.1),
    "narrow": PowerEMA(std=0.05),
    "wide": PowerEMA(std=0.1),
    "again": PowerEMA(std=0.1),
    "direct": PowerEMA(std=0.15),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("post_hoc") / "run"
    train(folder, settings=tiny_settings(snapshot_kimg=0.04), emas=EMAS)
    return RunDirectory(folder)


def difference(made, expected):
    """Relative to how far the average is from the weights before the training, all in one."""
    pairs = [(made[key] - expected[key], expected[key]) for key in expected]
    return (
        torch.cat([d.double().flatten() for d, _ in pairs]).norm()
        / torch.cat([e.double().flatten() for _, e in pairs]).norm()
    )


def averages(run, checkpoint="last"):
    return read_checkpoint(run.checkpoint(checkpoint))["ema"]


def test_a_tracked_width_is_its_own_average_and_another_one_is_close(run):
    emas = {name: EMAS[name] for name in ("half_life", "narrow", "wide", "again")}
    for std, direct, error in ((0.05, "narrow", 1e-6), (0.15, "direct", 2e-3)):
        file, words = reconstruct(run, emas, std=std, name="main")
        assert file.name == f"post-hoc-{std:g}.ckpt"
        assert words == (
            f"post-hoc average of width {std:g}, of 8 snapshots of narrow (0.05), wide (0.1)"
        )
        made = read_checkpoint(file)["ema"]["main"]
        assert difference(made, averages(run)[direct]) < error
        assert difference(averages(run)["wide"], averages(run)[direct]) > 2 * error


def test_it_can_end_earlier_and_is_found_by_its_name(run):
    kimg = read_checkpoint(run.kept_snapshots()[3])["images"] / 1000.0
    file, words = reconstruct(run, EMAS, std=0.1, kimg=kimg, name="main")
    assert words.endswith(f"at {kimg:g} kimg")
    state, loaded = stored_weights(run, weights="main", checkpoint=file.stem)
    assert loaded.kimg == kimg
    expected = read_checkpoint(run.kept_snapshots()[3])["ema"]["wide"]
    assert difference(state, expected) < 1e-6
    assert state["calls"] > 0  # buffers are those of the last snapshot


def test_a_training_without_snapshots_or_such_averages_is_refused(run, tmp_path):
    with pytest.raises(UsageError, match="kept no power-function average") as refused:
        reconstruct(run, {"half_life": EMAS["half_life"]}, std=0.1, name="main")
    assert refused.value.key == "selection"
    train(tmp_path / "plain")
    with pytest.raises(UsageError, match="kept no snapshots"):
        reconstruct(RunDirectory(tmp_path / "plain"), EMAS, std=0.1, name="main")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std": 0.3}, r"std is 0.3; allowed: \(0, 0.2886"),
        ({"std": 0.0}, "std is 0.0"),
        ({"std": 0.1, "kimg": 0.0}, "kimg is 0.0; allowed: finite positive numbers or null"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PostHoc(**options)
