"""Tables whose publication reports the best snapshot: what is run, what is marked."""

from dataclasses import replace

import pytest

from flowexp.config.problems import ConfigError
from flowexp.errors import UsageError
from flowexp.files import write_json
from flowexp.metrics.protocol import MetricRecord
from flowexp.tables.budgets import Budget
from flowexp.tables.render import render
from flowexp.tables.table_files import read_table
from tests.tables.files import job, table, write
from tests.tables.planned import plan
from tests.tables.test_collect import PROTOCOL, play

BEST = "best of 3 snapshots, 0.2 to 0.6 kimg, by fd_raw_64"


def content(*overrides, **row):
    rows = [{"label": "a", **job(*overrides), "published": 2.0, **row}]
    return table(rows, protocol={"num_samples": 64, "selection": "best_of_snapshots"})


def evaluation(folder, *overrides, changes=(), **row):
    one = plan(folder, content(*overrides, **row), changes=changes)
    return one, one.rows[0].evaluations[0]


def test_the_full_budget_selects_as_published(tmp_path):
    one, scored = evaluation(tmp_path, "trainer.snapshot_kimg=0.2")
    assert "selection=best_of_snapshots" in scored.arguments()
    assert scored.config["selection"]["num_samples"] == 64
    assert scored.run.config["trainer"]["snapshot_kimg"] == 0.2
    assert not one.scoring.scaled


def test_a_training_without_snapshots_is_another_job_and_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="keeps no snapshots"):
        evaluation(tmp_path)
    _, last = evaluation(tmp_path / "last", eval=["selection=last"])
    _, best = evaluation(tmp_path / "best", "trainer.snapshot_kimg=0.2")
    assert last.run.identity != best.run.identity


def test_a_budget_that_takes_the_last_weights_keeps_the_jobs_of_a_table_without_selection(tmp_path):
    cheap = ["budget.selection=last"]
    one, scored = evaluation(tmp_path / "a", "trainer.snapshot_kimg=0.2", changes=cheap)
    plain = table([{"label": "a", **job(), "published": 2.0}])
    before = plan(tmp_path / "b", plain).rows[0].evaluations[0]
    assert (scored.identity, scored.run.identity) == (before.identity, before.run.identity)
    assert "trainer.snapshot_kimg=null" in scored.run.arguments()
    assert one.scoring.scaled
    play(scored, 1.0)
    (row,) = one.result(budget="cheap").rows
    assert "selection: best of snapshots and last" in row.mismatch


def test_a_row_of_the_last_weights_is_not_marked_beside_published_bests(tmp_path):
    """Its own number was published of the last weights, in a table of best ones."""
    one, scored = evaluation(tmp_path, eval=["selection=last"])
    play(scored, 1.0)
    (row,) = one.result(budget="full").rows
    assert row.mismatch == ()


def test_a_number_of_the_last_weights_is_marked_beside_a_published_best(tmp_path):
    cheap = ["budget.selection=last"]
    one, scored = evaluation(tmp_path, "trainer.snapshot_kimg=0.2", changes=cheap)
    play(scored, 1.0)
    drawn = render(one.result(budget="full"), "markdown")
    assert "selection best" in drawn
    assert "best snapshot of a training" in drawn


def test_a_selected_number_is_comparable_and_says_so(tmp_path):
    one, scored = evaluation(tmp_path, "trainer.snapshot_kimg=0.2")
    play(scored, 1.0)
    record = MetricRecord(name="fd_raw", value=1.0, protocol=replace(PROTOCOL, selection=BEST))
    entry = {"nfe": 7.0, "records": [{"key": record.key, **record.to_dict()}]}
    write_json(scored.directory / "results.json", {"evaluations": [entry]})
    (row,) = one.result(budget="full").rows
    assert row.mismatch == ()
    assert row.measured.title.endswith(", best of 3 snapshots")
    assert row.measured.protocol["selection"] == BEST


def test_spans_of_snapshots_are_shortened_with_the_training():
    config = {"trainer": {"max_kimg": 1000.0, "snapshot_kimg": 50.0}}
    assert "trainer.snapshot_kimg=5.0" in Budget(name="x", max_kimg=100.0).of_training({}, config)
    last = Budget(name="x", max_kimg=100.0, selection="last").of_training({}, config)
    assert last == ("trainer.max_kimg=100.0", "trainer.snapshot_kimg=null")


def test_another_selection_is_refused_by_name(tmp_path):
    wrong = content()
    wrong["protocol"]["selection"] = "best"
    write(tmp_path, "t/one", wrong)
    with pytest.raises(UsageError, match="selection of protocol is 'best'") as refused:
        read_table("t/one", config_dir=str(tmp_path))
    assert "best_of_snapshots" in refused.value.remedy
