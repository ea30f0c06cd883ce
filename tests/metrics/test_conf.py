"""The yaml files of the group build the metrics they name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from flowexp.config.instantiate import instantiate as of_config
from flowexp.config.renamed import original
from flowexp.errors import UsageError
from flowexp.metrics import Metric
from tests.metrics.sets import Samples

GROUP = Path(__file__).parents[2] / "conf" / "metric"


def entries(option):
    return OmegaConf.load(GROUP / f"{option}.yaml")


SAMPLES = [
    "clip_mmd",
    "fd_dinov2",
    "fd_efflite0",
    "fd_raw",
    "fid",
    "fid_clean",
    "fid_legacy_pytorch",
    "inception_score",
    "kid",
    "kid_efflite0",
    "nearest_neighbours",
    "precision_recall",
    "precision_recall_efflite0",
    "sfid",
]
PAIRED = ["lpips", "perceptual_efflite0", "psnr", "ssim"]


@pytest.mark.parametrize("option", [*SAMPLES, *PAIRED])
def test_each_file_is_one_entry_of_its_own_name(option):
    content = entries(option)
    assert list(content) == [option]
    metric = instantiate(content[option])
    assert isinstance(metric, Metric)
    assert metric.name == option
    assert metric.paired is (option in PAIRED)


def test_adms_evaluator_reads_one_reference_batch(tmp_path):
    content = OmegaConf.create({"metric": entries("adm")})
    content.metric.fid.reference_statistics = str(tmp_path / "batch.npz")
    content.metric.fid.extractor.weights = str(tmp_path)
    found = instantiate(content)["metric"]
    assert list(found) == ["fid", "sfid", "inception_score_adm", "precision_recall_adm"]
    assert {name: metric.name for name, metric in found.items()} == {n: n for n in found}
    for name in ("fid", "sfid"):
        assert found[name].statistics.file == tmp_path / "batch.npz"
        assert found[name].statistics.extractor == found[name].extractor.name
        assert found[name].statistics.resize == found[name].extractor.resize
    assert found["precision_recall_adm"].batch.file == tmp_path / "batch.npz"
    assert {metric.extractor.weights for metric in found.values()} == {str(tmp_path)}


@pytest.mark.parametrize(
    "option",
    ["fid", "fid_clean", "fid_legacy_pytorch", "sfid", "kid", "inception_score",
     "precision_recall"],
)  # fmt: skip
def test_what_needs_inceptions_weights_refuses_to_start_without(monkeypatch, tmp_path, option):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FLOWEXP_WEIGHTS", raising=False)
    monkeypatch.delenv("TORCH_HOME", raising=False)
    with pytest.raises(UsageError, match="Inception-v3 weights") as caught:
        instantiate(entries(option)[option]).check()
    assert caught.value.key == f"metric.{option}.extractor.weights"


@pytest.mark.parametrize("option", ["kid_efflite0", "precision_recall_efflite0"])
def test_offline_options_run_from_the_installed_weights(option):
    metric = instantiate(entries(option)[option], **SMALL.get(option, {}))
    metric.check()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 1, 28, 28), dtype=np.uint8)
    metric.prepare(Samples(images, "f"))
    accumulator = metric.accumulator()
    accumulator.update(torch.from_numpy(images[:12]))
    accumulator.update(torch.from_numpy(images[12:]))
    for record in accumulator.compute():
        assert record.name.endswith("efflite0")
        assert "EfficientNet-Lite0 b4, 64px" in record.title
        assert record.value == pytest.approx({"precision": 1, "recall": 1}.get(
            record.name.partition("_")[0], record.value))  # fmt: skip


SMALL = {"kid_efflite0": {"subsets": 2, "subset_size": 20}}


@pytest.mark.parametrize(
    ("old", "option"),
    [
        ("InceptionScoreMetric", "inception_score"),
        ("KernelDistanceMetric", "kid"),
        ("PrecisionRecallMetric", "precision_recall"),
    ],
)
def test_stored_configs_name_metrics_by_their_old_targets(old, option):
    node = OmegaConf.to_container(entries(option)[option])
    stored = {**node, "_target_": f"flowexp.metrics.{old}"}
    assert type(of_config(stored, key="metric")) is type(instantiate(node))
    assert original(node["_target_"]) == stored["_target_"]


def test_several_can_be_selected_together():
    merged = OmegaConf.merge(entries("fd_efflite0"), entries("fd_raw"), entries("none"))
    assert list(merged) == ["fd_efflite0", "fd_raw"]
    assert list(entries("none")) == []


def test_auto_chooses_between_the_very_files():
    candidates = entries("auto")["auto"]["candidates"]
    assert candidates == [entries("fid")["fid"], entries("fd_efflite0")["fd_efflite0"]]


def test_auto_falls_back_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("FLOWEXP_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_HOME", raising=False)
    assert instantiate(entries("auto"))["auto"].name == "fd_efflite0"


def test_every_file_says_what_it_is_first():
    for file in GROUP.glob("*.yaml"):
        assert file.read_text().startswith("# "), file
