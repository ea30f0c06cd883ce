"""Scores of many runs in one data frame."""

import math

import pytest

from flowexp.errors import UsageError
from flowexp.report import results
from tests.report.runs import CONFIG, PROTOCOL, entry, make_run

MANIFEST = {
    "choices": {"path": "vp", "sampler": "heun", "hydra/launcher": "basic", "guidance": None}
}


@pytest.fixture
def folder(tmp_path):
    twice = [
        entry(33.0, directory="1"),
        entry(35.0, directory="1", seeds="200-399"),
        entry(0.5, directory="2", name="kid", metric="KID", nfe=None, extra={"stderr": 0.1}),
    ]
    make_run(tmp_path / "a" / "1", entries=twice)
    changed = {**CONFIG, "seed": 7}
    make_run(tmp_path / "b", entries=[entry(20.0)], config=changed, manifest=MANIFEST)
    make_run(tmp_path / "not_evaluated")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "results.json").write_text("{}")
    return tmp_path


def test_a_row_is_one_metric_on_one_range_of_seeds(folder):
    found = results(folder)
    assert found["run"].tolist() == ["a/1", "a/1", "a/1", "b"]
    assert found["value"].tolist() == [33.0, 35.0, 0.5, 20.0]
    assert found["seeds"].tolist() == ["0-199", "200-399", "0-199", "0-199"]
    assert found["key"].tolist()[2:] == ["eval/kid200", "eval/fd_efflite0_200"]
    assert found["seed"].tolist() == [0, 0, 0, 7]
    assert set(found["kimg"]) == {16.0}
    assert found["floor"].tolist()[:2] == [8.49, 8.49]
    assert math.isnan(found["floor"][2])
    assert found["stderr"][2] == 0.1


def test_choices_and_the_protocol_are_columns(folder):
    found = results(folder)
    assert found["path"].tolist() == ["edm", "edm", "edm", "vp"]
    assert not [name for name in found.columns if name.startswith("hydra")]
    assert found["extractor"].unique().tolist() == [PROTOCOL.extractor]
    assert found["n_gen"].unique().tolist() == [200]
    assert math.isnan(found["nfe"][2])
    # the sampler that scored, not the one the run was configured with
    assert found["sampler"].unique().tolist() == [PROTOCOL.sampler]
    means = found[found["metric"] == "FD"].groupby("path")["value"].mean()
    assert means.to_dict() == {"edm": 34.0, "vp": 20.0}


def test_a_run_is_a_folder_of_runs(folder):
    assert results(str(folder / "b"))["run"].tolist() == ["."]


def test_a_folder_without_scores_is_an_empty_frame_with_columns(folder):
    found = results(folder / "not_evaluated")
    assert len(found) == 0
    assert {"run", "value", "sampler", "nfe"} <= set(found.columns)


def test_what_cannot_be_read_is_named(folder):
    with pytest.raises(UsageError, match="is not a folder"):
        results(folder / "nowhere")
    (folder / "b" / "results.json").write_text("{")
    with pytest.raises(UsageError, match="cannot read the results"):
        results(folder)
