"""What a file may say, and that everything else is refused by name."""

import pytest

from flowexp.errors import UsageError
from flowexp.tables.table_files import names, read_claim, read_table
from tests.tables.files import claim, job, table, write


def refusal(tmp_path, content, *, kind="table"):
    folder = str(write(tmp_path, "mine/one", content, kind=kind))
    read = read_table if kind == "table" else read_claim
    with pytest.raises(UsageError) as found:
        read("mine/one", config_dir=folder)
    return str(found.value)


def test_rows_inline_and_by_job(tmp_path):
    rows = [
        {"label": "a", "job": "teacher", "eval": ["sampler.steps=3"], "published": 2, "nfe": 3},
        {"label": "b", **job("seed=1", parents={"init": "teacher"}), "calibrate": ["for=boss"]},
    ]
    read = read_table(
        "mine/one",
        config_dir=str(write(tmp_path, "mine/one", table(rows, jobs={"teacher": job()}))),
    )
    assert [row.job for row in read.rows] == ["teacher", "b"]
    assert read.jobs["b"].parents == {"init": ("teacher",)}
    assert (read.rows[0].published, read.rows[0].eval) == (2.0, ("sampler.steps=3",))
    assert (read.rows[0].calibrate, read.rows[1].calibrate) == (None, ("for=boss",))


def test_every_file_of_the_house_can_be_read():
    for name in names("table"):
        assert read_table(name).rows
    for name in names("claim"):
        assert len(read_claim(name).rows) >= 2


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"Did you mean pfgmpp/cifar10\?"):
        read_table("pfgmpp/cifar100")


ROW = {"label": "a", "job": "teacher"}
JOBS = {"teacher": job()}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (table([ROW], jobs=JOBS, titel="x"), ["'titel'", "title"]),
        (table([{**ROW, "overides": []}], jobs=JOBS), ["row 'a'", "'overides'", "overrides"]),
        (table([ROW], jobs={"teacher": {**job(), "verbs": 1}}), ["job 'teacher'", "verb"]),
        (table([ROW], jobs=JOBS, protocol={"samples": 3}), ["'samples'", "num_samples"]),
        (table([{**ROW, "job": "teachr"}], jobs=JOBS), ["'teachr'", "Did you mean teacher?"]),
        (table([{"label": "a"}]), ["row 'a'", "nothing to train"]),
        (table([{"job": "teacher"}], jobs=JOBS), ["no label"]),
        (table([ROW, ROW], jobs=JOBS), ["two rows", "'a'"]),
        (table([], jobs=JOBS), ["rows"]),
        (table([{**ROW, "overrides": ["seed=1"]}], jobs=JOBS), ["names a job and has overrides"]),
        (table([{**ROW, "eval": "sampler=heun"}], jobs=JOBS), ["eval of row 'a'", "list"]),
        (table([{**ROW, "published": "low"}], jobs=JOBS), ["published of row 'a'", "'low'"]),
        (table([ROW], jobs={"teacher": job(parents={"init": "nobody"})}), ["'nobody'"]),
        (table([ROW], jobs={"teacher": job(parents={"init": "teacher"})}), ["wait for each other"]),
        (table([ROW], jobs={"teacher": job(after=["nobody"])}), ["'nobody'"]),
        (table([ROW], jobs={"teacher": job(after=["teacher"])}), ["wait for each other"]),
        (table([ROW], jobs={"teacher": {**job(), "verb": "eval"}}), ["verb", "train"]),
        ("rows: [", ["is no YAML"]),
        ("just words", ["no mapping"]),
    ],
)
def test_what_a_table_may_not_say(tmp_path, content, words):
    text = refusal(tmp_path, content)
    assert all(word in text for word in ["table mine/one", *words]), text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"direction": "smaller"}, ["direction", "'smaller'", "lower, higher"]),
        ({"seeds": [0, 1]}, ["seeds", "three"]),
        ({"test": "by eye"}, ["test", "paired t"]),
        ({"num_samples": 1}, ["num_samples"]),
        ({"arms": [ROW]}, ["two arms"]),
        ({"rows": []}, ["'rows'"]),
    ],
)
def test_what_a_claim_may_not_say(tmp_path, change, words):
    content = {**claim([ROW, {"label": "b", "job": "teacher"}], jobs=JOBS), **change}
    text = refusal(tmp_path, content, kind="claim")
    assert all(word in text for word in ["claim mine/one", *words]), text
