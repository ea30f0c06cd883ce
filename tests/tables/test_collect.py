"""What finished jobs left behind becomes the numbers of rows; played results, known answers."""

import json
import math

import pytest

from flowexp.errors import UsageError
from flowexp.files import write_json, write_text
from flowexp.metrics.protocol import MetricRecord, Protocol
from flowexp.tables.jobs import all_jobs
from tests.tables.files import claim, job, table
from tests.tables.planned import plan, planned_claim

PROTOCOL = Protocol(
    metric="FD",
    extractor="raw values",
    weights_sha256=None,
    resize="none",
    quantization="points none",
    reference="eight_gaussians",
    reference_fingerprint="f",
    reference_split="train",
    n_ref=1000,
    n_gen=64,
    ema="main",
    nfe=7.0,
    device="cpu",
    notice="played",
)


def play(evaluation, *values):
    """Finish an evaluation and all it needs with these values."""
    for one in evaluation.ancestry():
        content = {"identity": one.identity, "seconds": 10.0, "hardware": "a computer"}
        write_json(one.done_file, {**content, "versions": {"torch": "9"}})
    records = [
        MetricRecord(name="fd_raw", value=value, protocol=PROTOCOL, extra={"floor": 0.5})
        for value in values
    ]
    entries = [{"nfe": 7.0, "records": [{"key": r.key, **r.to_dict()}]} for r in records]
    write_json(evaluation.directory / "results.json", {"evaluations": entries})


def play_several(evaluation, **values):
    """Finish an evaluation of a metric that gives several numbers, in this order."""
    for name, value in values.items():
        play(evaluation, value)
        (entry,) = json.loads((evaluation.directory / "results.json").read_text())["evaluations"]
        values[name] = {**entry["records"][0], "name": name}
    entries = [{"nfe": 7.0, "records": list(values.values())}]
    write_json(evaluation.directory / "results.json", {"evaluations": entries})


@pytest.mark.parametrize(
    ("record", "value"),
    [(None, 0.6), ("precision", 0.6), ("recall", 0.4), ("recall_efflite0", 0.4)],
)
def test_a_table_names_the_number_that_counts(tmp_path, record, value):
    one = plan(tmp_path, {**content(), "record": record})
    play_several(one.rows[0].evaluations[0], precision_efflite0=0.6, recall_efflite0=0.4)
    result = one.result(budget="full")
    assert result.rows[0].measured.mean == value
    assert result.metric == (record or "fd_raw")


def test_a_number_that_the_metric_does_not_give_is_refused(tmp_path):
    one = plan(tmp_path, {**content(), "record": "coverage"})
    play_several(one.rows[0].evaluations[0], precision=0.6, recall=0.4)
    with pytest.raises(UsageError, match=r"no 'coverage', only precision, recall"):
        one.result(budget="full")


def test_numbers_of_other_data_are_not_comparable(tmp_path):
    one = plan(tmp_path, content(reference="ImageNet 256"))
    play(one.rows[0].evaluations[0], 1.0)
    (row,) = one.result(budget="full").rows
    assert row.mismatch == ("reference: ImageNet 256 and eight_gaussians",)


def content(**protocol):
    rows = [{"label": "a", **job(), "published": 2.0, "nfe": 6, "source": "table 1"}]
    return table(rows, protocol={"num_samples": 64, **protocol})


def test_one_number_for_each_seed(tmp_path):
    one = plan(tmp_path, content(), seeds=[0, 1, 2])
    for evaluation, value in zip(one.rows[0].evaluations, (1.0, 2.0, 6.0), strict=True):
        play(evaluation, value)
    result = one.result(budget="full")
    (row,) = result.rows
    found = row.measured
    assert (found.values, found.mean, found.minimum) == ((1.0, 2.0, 6.0), 3.0, 1.0)
    assert found.spread == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    # training and evaluation of three seeds
    assert found.seconds == 60.0
    assert (found.nfe, found.n_gen, found.floor, found.notice) == (7.0, 64, 0.5, "played")
    assert (row.status, row.scaled, row.mismatch) == ("done", False, ())
    assert (row.published, row.published_nfe, row.published_source) == (2.0, 6.0, "table 1")
    assert (result.hardware, result.versions) == ("a computer", {"torch": "9"})
    assert row.runs == tuple(str(e.run.directory) for e in one.rows[0].evaluations)


def test_a_seed_without_a_finite_number_leaves_no_spread(tmp_path):
    one = plan(tmp_path, content(), seeds=[0, 1])
    for evaluation, value in zip(one.rows[0].evaluations, (1.0, math.nan), strict=True):
        play(evaluation, value)
    (row,) = one.result(budget="full").rows
    assert math.isnan(row.measured.mean)
    assert math.isnan(row.measured.spread)


@pytest.mark.parametrize(("reported", "value"), [("minimum", 1.0), ("mean", 2.0), (None, 2.0)])
def test_ranges_of_seeds_are_reported_as_the_publication_does(tmp_path, reported, value):
    one = plan(tmp_path, content(repetitions=3, reported=reported))
    assert one.scoring.repeats == 3
    play(one.rows[0].evaluations[0], 3.0, 1.0, 2.0)
    (row,) = one.result(budget="full").rows
    assert row.measured.values == (value,)
    assert math.isnan(row.measured.spread)


def test_every_difference_from_the_published_protocol_is_named(tmp_path):
    stated = {"reference": "training set", "weights": "other", "repetitions": 3}
    changed = {**content(**stated, reported="minimum"), "metric": "fid"}
    changed["protocol"]["num_samples"] = 50_000
    one = plan(tmp_path, changed, changes=["budget.num_samples=64", "budget.repeats=1",
                                           "+budget.metric.fid=fd_raw"])  # fmt: skip
    play(one.rows[0].evaluations[0], 1.0)
    (row,) = one.result(budget="full").rows
    text = "; ".join(row.mismatch)
    assert row.scaled
    for words in ("metric: fid and fd_raw", "Inception-v3", "n_gen: 50000 and 64",
                  "ema: other and main", "repetitions: minimum of 3 and 1"):  # fmt: skip
        assert words in text, words
    assert "reference_split" not in text


def test_a_row_is_missing_until_every_seed_is_done(tmp_path):
    one = plan(tmp_path, content(), seeds=[0, 1])
    play(one.rows[0].evaluations[0], 1.0)
    (row,) = one.result(budget="full").rows
    assert (row.status, row.measured, row.log) == ("missing", None, None)


def test_a_claim_on_relative_numbers(tmp_path):
    jobs = {"a": job(), "b": job("optimizer.lr=1e-3")}
    arms = [{"label": n, "job": n, "eval": ["weights=raw"], "relative_to": []} for n in jobs]
    one = planned_claim(tmp_path, claim(arms, jobs=jobs))
    assert one.result(budget="cpu").verdict == "missing"
    first, last = one.rows
    for number, (noisy, clean) in enumerate(zip(first.evaluations, first.baselines, strict=True)):
        play(noisy, 6.0 + number)
        play(clean, 2.0)
    for number, (noisy, clean) in enumerate(zip(last.evaluations, last.baselines, strict=True)):
        play(noisy, 4.0 + 2 * number)
        play(clean, 4.0)
    found = one.result(budget="cpu")
    assert found.arms[0].measured.values == (3.0, 3.5, 4.0)
    assert found.arms[1].measured.values == (1.0, 1.5, 2.0)
    assert (found.verdict, found.p_value) == ("holds", 0.0)
    assert "relative to" in found.arms[0].measured.title
    assert len(all_jobs(one.rows)) == 18


def train(job, *seconds, cores=1.0):
    """Record a training of 1 kimg in rows that end at these wall seconds."""
    rows = [
        {"step": n, "kimg": n / len(seconds), "time/seconds": end, "time/cores": cores}
        for n, end in enumerate(seconds, start=1)
    ]
    write_text(job.directory / "metrics.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))


def student(**more):
    jobs = {
        "teacher": job(),
        "pairs": {"verb": "pairs", "parents": {"run": "teacher"}, "overrides": ["num=8"]},
        "student": job("init_weights=raw", parents={"init": "teacher"}, after=["pairs"]),
    }
    rows = [{"label": "a row", "job": "student"}]
    return table(rows, jobs=jobs, seeds=[0, 1, 2], **more)


@pytest.mark.parametrize(
    ("kimg", "device", "expected"),
    [
        (1.0, "cpu", 2 * 8.0 + 2 * 40.0 + 10.0),  # its own time, the teacher's, the pair set's
        (0.5, "cpu", 2 * 3.0 + 2 * 40.0 + 10.0),
        (0.75, "cpu", 1.5 * 2 * 3.0 + 2 * 40.0 + 10.0),  # half-way between two rows
        (1.0, "NVIDIA H200", 8.0 + 40.0 + 10.0),
        (None, "cpu", None),
    ],
)
def test_training_time_is_that_of_the_scored_weights_and_all_they_started_from(
    tmp_path, kimg, device, expected
):
    one = plan(tmp_path, student(), budget="cpu")
    for evaluation in one.rows[0].evaluations:
        play(evaluation, 1.0)
        train(evaluation.run, 3.0, 8.0, cores=2.0)
        (teacher,) = evaluation.run.parents["init"]
        train(teacher, 40.0, cores=2.0)
        file = evaluation.directory / "results.json"
        (entry,) = json.loads(file.read_text())["evaluations"]
        entry["records"][0]["protocol"]["device"] = device
        write_json(file, {"evaluations": [{**entry, "checkpoint": {"kimg": kimg}}]})
    (row,) = one.result(budget="cpu").rows
    assert row.measured.training_seconds == expected


def test_training_time_is_unknown_where_a_parent_has_left_none(tmp_path):
    one = plan(tmp_path, student(), budget="cpu")
    for evaluation in one.rows[0].evaluations:
        play(evaluation, 1.0)
        train(evaluation.run, 8.0)
        evaluation.run.parents["init"][0].done_file.unlink()
        file = evaluation.directory / "results.json"
        (entry,) = json.loads(file.read_text())["evaluations"]
        write_json(file, {"evaluations": [{**entry, "checkpoint": {"kimg": 1.0}}]})
    assert one.result(budget="cpu").rows[0].measured.training_seconds is None


@pytest.mark.parametrize("budget", ["cpu", "small", "full"])
def test_a_table_with_seeds_is_run_as_written_under_every_budget(tmp_path, budget):
    content = student(samples=64)
    one = plan(tmp_path, content, budget=budget)
    assert one.rows[0].seeds == (0, 1, 2)
    assert not one.rows[0].scaled
    assert one.scoring.num_samples == 64
    assert plan(tmp_path, content, budget=budget, seeds=[5]).rows[0].seeds == (5,)
