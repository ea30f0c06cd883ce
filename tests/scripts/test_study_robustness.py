"""The robustness study: what it would run, what it need not repeat, and its tables."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from flowexp.config.check import check
from flowexp.tables.render.plots import LIGHT

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def study_module(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("study_robustness")
    sys.modules.pop("study_robustness", None)


@pytest.fixture
def study(study_module, tmp_path):
    arguments = ["--seeds", "0", "1", "--D", "4", "inf", "--alphas", "0", "0.4", "--kimg", "2"]
    return study_module.parsed([*arguments, "--runs", str(tmp_path)])[0]


def entry(value, overrides=()):
    protocol = {"metric": "FD", "sampler": "Heun"}
    record = {"key": "eval/fd_raw_200", "value": value, "protocol": protocol}
    return {"overrides": list(overrides), "nfe": 35.0, "records": [record]}


def test_commands_are_sound(study):
    for D in study.D:
        assert [str(p) for p in check("train", study.training(D, 0)).problems] == []
    evaluation = [
        o for o in study.evaluation("4", 0, 0.4) if not o.startswith(("run=", "num_", "device="))
    ]
    assert [str(p) for p in check("train", evaluation).problems] == []


def test_finished_work_is_found(study, study_module):
    folder = study.run("4", 1)
    assert not study_module.is_trained(study, "4", 1)
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"kimg": 1.0}\n')
    assert not study_module.is_trained(study, "4", 1)
    (folder / "metrics.jsonl").write_text('{"kimg": 1.0}\n{"kimg": 2.0}\n')
    assert study_module.is_trained(study, "4", 1)
    assert study_module.stored_score(study, "4", 1, 0.4) is None
    done = [entry(1.0, study.evaluation("4", 1, 0.0)), entry(2.0, study.evaluation("4", 1, 0.4))]
    (folder / "results.json").write_text(json.dumps({"evaluations": done}))
    assert study_module.stored_score(study, "4", 1, 0.4) == done[1]


def test_tables_hold_every_number_and_its_circumstances(study, study_module, tmp_path):
    scores = {
        ("4", 0.0): [entry(10.0), entry(12.0)],
        ("4", 0.4): [entry(20.0), entry(24.0)],
        ("inf", 0.0): [entry(9.0), entry(11.0)],
        ("inf", 0.4): [entry(40.0), entry(60.0)],
    }
    found = study_module.summary(study, scores)
    study_module.write(study, found, tmp_path)
    stored = json.loads((tmp_path / "pfgmpp_robustness.json").read_text())
    assert stored["rows"][3]["mean"] == 50.0
    assert stored["rows"][3]["std"] == pytest.approx(200**0.5)
    assert stored["seeds"] == [0, 1]
    assert {"hardware", "date", "versions", "protocol", "num_samples"} <= stored.keys()
    text = (tmp_path / "pfgmpp_robustness.md").read_text()
    assert "| inf | 10 ± 1.4 | 50 ± 14 | 5.00 |" in text
    with Image.open(tmp_path / "pfgmpp_robustness.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(100_000)}
    assert {to_rgb_levels(LIGHT[name]) for name in ("s1", "s2")} <= colours


def test_one_alpha_and_one_seed_can_be_drawn(study_module, tmp_path):
    arguments = ["--seeds", "0", "--D", "1", "--alphas", "0", "--runs", str(tmp_path)]
    study, _ = study_module.parsed(arguments)
    found = study_module.summary(study, {("1", 0.0): [entry(3.0)]})
    study_module.write(study, found, tmp_path)
    assert (tmp_path / "pfgmpp_robustness.png").stat().st_size > 1000


def to_rgb_levels(colour):
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
