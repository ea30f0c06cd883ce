"""The best snapshot: which one, by what, and that each score is measured once."""

import json
import math
from pathlib import Path

import pytest

from flowexp.errors import NotWrittenError, UsageError
from flowexp.evaluation import BestOfSnapshots, SnapshotScores
from flowexp.metrics import (
    SSIM,
    InceptionLogits,
    InceptionScore,
    MetricRecord,
    NearestNeighbours,
    Protocol,
    RawValues,
)
from flowexp.pipeline import Processes
from tests.evaluation.tiny import kernel_distance, metric

PROTOCOL = Protocol(
    metric="FD",
    extractor="raw values",
    weights_sha256=None,
    resize="none",
    quantization="none",
    reference="tiles",
    reference_fingerprint="abc",
    reference_split="train",
    n_ref=64,
    n_gen=16,
)


class Run:
    """Snapshots with given scores, and a note of those that were measured."""

    def __init__(self, folder: Path, values: list[float]) -> None:
        self.folder, self.measured = folder, []
        self.snapshots = {}
        for number, value in enumerate(values, start=1):
            file = folder / f"snapshot-{number:09d}.ckpt"
            file.write_text(f"{number} {value}")
            self.snapshots[file] = 100.0 * number

    def measure(self, snapshot: Path) -> float:
        self.measured.append(int(snapshot.stem.rpartition("-")[2]))
        return float(snapshot.read_text().split()[1])

    def choose(self, *, higher_is_better=False, measured_with="x", measure=None):
        return BestOfSnapshots(num_samples=16).choose(
            self.snapshots,
            metric="fd_raw",
            higher_is_better=higher_is_better,
            scores=SnapshotScores(self.folder / "scores.json", measured_with=measured_with),
            measure=measure or self.measure,
            processes=Processes(),
        )


@pytest.mark.parametrize(
    ("values", "higher", "best"),
    [
        ([3.0, 1.0, 2.0], False, 200.0),
        ([3.0, 1.0, 2.0], True, 100.0),
        ([2.0, 1.0, 1.0], False, 200.0),  # of equal ones the earliest
        ([1.0, 2.0, 2.0], True, 200.0),
        ([math.nan, 5.0, math.nan], False, 200.0),
        ([math.inf, 5.0, 7.0], True, 300.0),
        ([-math.inf, 5.0, 7.0], False, 200.0),
    ],
)
def test_the_best_is_chosen(tmp_path, values, higher, best):
    chosen = Run(tmp_path, values).choose(higher_is_better=higher)
    assert chosen.best.kimg == best
    assert chosen.words == "best of 3 snapshots, 100 to 300 kimg, by fd_raw_16"


def test_without_a_finite_score_there_is_none(tmp_path):
    with pytest.raises(UsageError, match="none of the 2 snapshots"):
        Run(tmp_path, [math.nan, math.inf]).choose()


def test_each_score_is_stored_at_once_and_found_again(tmp_path, caplog):
    run = Run(tmp_path, [3.0, math.nan, 1.0, 2.0])

    def dies_at_the_third(snapshot):
        if len(run.measured) == 2:
            raise KeyboardInterrupt
        return run.measure(snapshot)

    with pytest.raises(KeyboardInterrupt):
        run.choose(measure=dies_at_the_third)
    assert run.measured == [1, 2]
    with caplog.at_level("INFO", logger="flowexp"):
        assert run.choose().best.kimg == 300.0
    assert run.measured == [1, 2, 3, 4]
    assert "snapshot 3 of 4, 300 kimg: fd_raw 1" in caplog.text
    run.choose()
    assert run.measured == [1, 2, 3, 4]
    stored = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert [entry["value"] for entry in stored] == [3.0, None, 1.0, 2.0]
    assert [entry["kimg"] for entry in stored] == [100.0, 200.0, 300.0, 400.0]


def test_another_protocol_or_another_snapshot_is_measured_anew(tmp_path):
    run = Run(tmp_path, [3.0, 1.0])
    run.choose()
    run.choose(measured_with="y")
    assert run.measured == [1, 2, 1, 2]
    (tmp_path / "snapshot-000000001.ckpt").write_text("1 0.5")
    assert run.choose().best.kimg == 100.0
    assert run.measured == [1, 2, 1, 2, 1]


@pytest.mark.parametrize(
    "content", [b"[]", b"\xff\xfe", b'{"scores": [5]}', b'{"scores": [{"sha256": "1"}]}', None]
)
def test_a_damaged_file_of_scores_is_named_before_anything_is_measured(tmp_path, content):
    run, file = Run(tmp_path, [3.0]), tmp_path / "scores.json"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(UsageError, match=r"scores\.json"):
        run.choose()
    assert run.measured == []


def test_a_score_that_cannot_be_stored_is_shown_and_counts(tmp_path, caplog, monkeypatch):
    def full(*_):
        raise NotWrittenError("the disk is full")

    monkeypatch.setattr("flowexp.evaluation.selection.write_json", full)
    with caplog.at_level("INFO", logger="flowexp"):
        assert Run(tmp_path, [3.0, 1.0]).choose().best.kimg == 200.0
    assert "fd_raw 1" in caplog.text
    assert "the disk is full" in caplog.text


def test_which_metric_selects():
    neighbours = NearestNeighbours(RawValues(), name="nearest_neighbours")
    metrics = {
        "fd_raw": metric(),
        "ssim": SSIM(name="ssim"),
        "inception_score": InceptionScore(InceptionLogits(), name="inception_score"),
        "kid": kernel_distance(),
        "nearest_neighbours": neighbours,
    }
    assert BestOfSnapshots(num_samples=2).metric_of(metrics) == ("fd_raw", False)
    for name, higher in {"ssim": True, "inception_score": True, "kid": False}.items():
        assert BestOfSnapshots(num_samples=2, metric=name).metric_of(metrics) == (name, higher)
    with pytest.raises(UsageError, match="neither more nor less"):
        BestOfSnapshots(num_samples=2, metric="nearest_neighbours").metric_of(metrics)
    with pytest.raises(UsageError, match="'fid' is not measured here"):
        BestOfSnapshots(num_samples=2, metric="fid").metric_of(metrics)
    with pytest.raises(ValueError, match="num_samples is 1"):
        BestOfSnapshots(num_samples=1)


def test_protocols_of_different_selections_differ():
    def of(selection):
        record = MetricRecord(name="fd_raw", value=1.0, protocol=PROTOCOL)
        return record.with_run(selection=selection).protocol

    last, best = of("last"), of("best of 3 snapshots, 100 to 300 kimg, by fd_raw_16")
    assert last == PROTOCOL  # what does not state it counts as last
    assert last.title == "FD[raw values] 16 on tiles"
    assert best.title == "FD[raw values] 16 on tiles, best of 3 snapshots"
    assert last.differences(best) == [f"selection: last and {best.selection}"]
    more = of("best of 9 snapshots, 100 to 900 kimg, by fd_raw_16")
    assert best.differences(more)
