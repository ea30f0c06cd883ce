"""Numbers in results.json are found again by what determined them."""

import json
from dataclasses import replace

import pytest

from flowexp.errors import UsageError
from flowexp.evaluation import ScoreResult, append_results, stored_results, together
from flowexp.metrics.protocol import MetricRecord
from tests.report.runs import PROTOCOL


def result(*values, metrics):
    records = [
        MetricRecord(name=name, value=value, protocol=PROTOCOL)
        for name, value in zip(metrics, values, strict=True)
    ]
    return ScoreResult(tuple(records), 200, 35.0, 2.0, 100.0, metrics=tuple(metrics))


def test_the_latest_numbers_with_the_digest_are_found(tmp_path):
    file = tmp_path / "results.json"
    assert stored_results(file, {"fd": "1"}) == {}
    both = result(3.0, 4.0, metrics=["fd", "kid"])
    append_results(file, both, measured_with={"fd": "1", "kid": "2"})
    append_results(file, result(5.0, metrics=["fd"]), measured_with={"fd": "1"})
    append_results(file, result(6.0, metrics=["fd"]))
    append_results(file, result(7.0, metrics=["fd"]), measured_with={"fd": "other"})
    found = stored_results(file, {"fd": "1", "kid": "2", "is": "3"})
    assert {name: one.records[0].value for name, one in found.items()} == {"fd": 5.0, "kid": 4.0}
    assert found["kid"].count == 200
    assert found["kid"].metrics == ("kid",)
    stored = json.loads(file.read_text())["evaluations"]
    assert "measured_with" not in stored[2]["records"][0]


def test_numbers_of_one_metric_stay_together(tmp_path):
    file = tmp_path / "results.json"
    append_results(file, result(0.5, 0.6, metrics=["pr", "pr"]), measured_with={"pr": "1"})
    known = stored_results(file, {"pr": "1"})["pr"]
    merged = together([known, result(3.0, metrics=["fd"])], order=["fd", "pr"])
    assert [record.value for record in merged.records] == [3.0, 0.5, 0.6]
    assert merged.metrics == ("fd", "pr", "pr")


def test_what_the_sampler_counted_is_stored_if_it_counted_anything(tmp_path):
    file = tmp_path / "results.json"
    plain = result(3.0, metrics=["fd"])
    counted = replace(plain, facts={"accepted share": 0.43})
    append_results(file, plain, measured_with={"fd": "1"})
    append_results(file, counted, measured_with={"fd": "2"})
    first, second = json.loads(file.read_text())["evaluations"]
    assert "sampler_facts" not in first
    assert second["sampler_facts"] == {"accepted share": 0.43}
    found = stored_results(file, {"a": "1", "b": "2"})
    assert (found["a"].facts, found["b"].facts) == ({}, {"accepted share": 0.43})
    assert ("accepted share", "0.43") in found["b"].costs()


def test_another_file_is_refused(tmp_path):
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(UsageError, match="holds no results"):
        stored_results(tmp_path / "results.json", {"fd": "1"})
