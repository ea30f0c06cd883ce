"""The yaml files of the group build the metrics they name."""

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from flowexp.metrics import Metric

GROUP = Path(__file__).parents[2] / "conf" / "metric"


def entries(option):
    return OmegaConf.load(GROUP / f"{option}.yaml")


@pytest.mark.parametrize("option", ["fid", "fd_efflite0", "fd_raw"])
def test_each_file_is_one_entry_of_its_own_name(option):
    content = entries(option)
    assert list(content) == [option]
    metric = instantiate(content[option])
    assert isinstance(metric, Metric)
    assert metric.name == option


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
