"""What a file may say, and that everything else is refused by name."""

import pytest
import torch

from flowexp.config.check import check_job
from flowexp.config.instantiate import instantiate
from flowexp.errors import UsageError
from flowexp.paths import VE, Path
from flowexp.tables.table_files import names, read_claim, read_table
from tests.samplers.closed_forms import GaussianModel
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
    assert [row.training for row in read.rows] == ["teacher", "b"]
    assert read.jobs["b"].parents == {"init": ("teacher",)}
    assert (read.rows[0].published, read.rows[0].eval) == (2.0, ("sampler.steps=3",))
    assert (read.rows[0].calibrate, read.rows[1].calibrate) == (None, ("for=boss",))


def test_every_file_of_the_house_can_be_read():
    for name in names("table"):
        assert read_table(name).rows
    for name in names("claim"):
        assert len(read_claim(name).arms) >= 2


def test_the_rows_of_diff_solvers_take_the_evaluations_they_state():
    """Every solver at one number of calls, from sigma = 80 to 0.002; 56 figures in all."""
    rows = read_table("diff_solvers/cifar10").rows
    assert sum(row.published is not None for row in rows) == 56
    mean = torch.zeros(1, 2, dtype=torch.float64)
    model = GaussianModel(Path(VE()), mean=mean, std=0.5)
    e = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    tried = [row for row in rows if row.nfe == 8]
    assert len(tried) == 9
    for row in tried:
        config = check_job("train", ["experiment=cifar10/edm_uncond_vp", *row.eval]).config
        sampler = instantiate(config["sampler"], key="sampler")
        samples = sampler.sample(model, e)
        assert samples.nfe.tolist() == [8], row.label
        ends = sampler.times(model)[[0, -1]].tolist()
        assert ends == pytest.approx([80.0, 0.002], rel=1e-9), row.label


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
        ("rows: [", ["cannot parse", "as YAML"]),
        ("just words", ["is not a mapping"]),
    ],
)
def test_what_a_table_may_not_say(tmp_path, content, words):
    text = refusal(tmp_path, content)
    assert all(word in text for word in ["table mine/one", *words]), text


GRID = {
    "columns": {"steps": [5, 10], "sampler": ["euler", "heun"], "last": [None, "seed=1"]},
    "defaults": {
        "label": "{solver}, {steps}",
        "job": "teacher",
        "eval": ["sampler={sampler}", "sampler.steps={steps}", "{last}"],
        "nfe": "{steps}",
    },
    "rows": [
        {"solver": "own", "sampler": ["boss", "ab"], "published": [2.5, None]},
        {"solver": "given", "calibrate": ["for={sampler}"], "published": 1, "nfe": 7},
        {"solver": "one", "sampler": "heun3"},
    ],
}


def test_a_grid_is_rows_times_columns_with_defaults(tmp_path):
    content = table([{"label": "first", "job": "teacher"}, GRID], jobs=JOBS)
    content["defaults"] = {"source": "Table 1", "verified": True}
    read = read_table("mine/one", config_dir=str(write(tmp_path, "mine/one", content)))
    assert [row.label for row in read.rows] == [
        "first",
        "own, 5",
        "own, 10",
        "given, 5",
        "given, 10",
        "one, 5",
        "one, 10",
    ]
    assert {(row.source, row.verified) for row in read.rows} == {("Table 1", True)}
    assert [row.published for row in read.rows] == [None, 2.5, None, 1, 1, None, None]
    assert [row.nfe for row in read.rows] == [None, 5, 10, 7, 7, 5, 10]
    assert [row.eval for row in read.rows[1:3]] == [
        ("sampler=boss", "sampler.steps=5"),
        ("sampler=ab", "sampler.steps=10", "seed=1"),
    ]
    assert [row.eval[0] for row in read.rows[5:]] == ["sampler=heun3", "sampler=heun3"]
    assert [row.calibrate for row in read.rows[2:4]] == [None, ("for=euler",)]


def test_lists_within_lists_are_opened_up(tmp_path):
    common = ["seed=1", ["trainer.batch_size=8"]]
    content = table([{"label": "a", "job": "one", "eval": [["sampler=heun"], "sampler.steps=2"]}])
    content["jobs"] = {"one": {"experiment": "toy2d/rectified_flow", "overrides": [common, "a=1"]}}
    write(tmp_path, "mine/one", content)
    read = read_table("mine/one", config_dir=str(tmp_path))
    assert read.jobs["one"].overrides == ("seed=1", "trainer.batch_size=8", "a=1")
    assert read.rows[0].eval == ("sampler=heun", "sampler.steps=2")


def test_a_claim_may_compare_the_trainings_of_a_table(tmp_path):
    write(tmp_path, "mine/one", table([{"label": "a", "job": "one"}], jobs={"one": job()}))
    arms = [{"label": "a", "job": "one"}, {"label": "b", "job": "two"}]
    content = claim(arms, jobs={"two": job("seed=1")}, jobs_of="mine/one")
    write(tmp_path, "mine/two", content, kind="claim")
    read = read_claim("mine/two", config_dir=str(tmp_path))
    table_s = read_table("mine/one", config_dir=str(tmp_path)).jobs["one"]
    assert read.jobs == {"one": table_s, "two": read.jobs["two"]}
    write(tmp_path, "mine/two", {**content, "jobs_of": "mine/no"}, kind="claim")
    with pytest.raises(UsageError, match="there is no table 'mine/no'"):
        read_claim("mine/two", config_dir=str(tmp_path))


def test_a_grid_s_row_may_name_its_method_in_its_label(tmp_path):
    defaults = {"label": "{method}, {n}", "job": "one", "eval": ["sampler.steps={n}"]}
    rows = [{"columns": {"n": [1, 2]}, "defaults": defaults, "rows": [{"method": "A"}]}]
    write(tmp_path, "mine/one", table(rows, jobs={"one": job()}))
    read = read_table("mine/one", config_dir=str(tmp_path)).rows
    assert [(row.label, row.method) for row in read] == [("A, 1", "A"), ("A, 2", "A")]


def grid(**change):
    return table([{**GRID, **change}], jobs=JOBS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (grid(rows=[{"solver": "a", "published": [1, 2, 3]}]), ["'a'", "3 values for 2 columns"]),
        (
            grid(columns={"steps": [1], "sampler": ["a", "b"]}),
            ["a grid's columns", "1 values for 2 columns"],
        ),
        (grid(rows=[{"solver": "a", "evall": ["x", "y"]}]), ["'evall'", "Did you mean eval?"]),
        (grid(rows=[{"solvr": "a"}]), ["no key 'solvr'", "Did you mean solver?"]),
        (grid(rows=[{"sampler": "boss"}]), ["{solver}", "no value"]),
        (grid(rows=[{"solver": "a", "published": "low"}]), ["published of row 'a, 5'", "'low'"]),
        (grid(rows=[{"solver": "a"}, {"solver": "a"}]), ["two rows", "'a, 5'"]),
        (grid(rows=[]), ["rows of a grid", "list"]),
        (grid(columns={}), ["columns of a grid", "lists"]),
        (grid(columns={"steps": 5}), ["columns of a grid", "lists"]),
        (grid(default={}), ["a grid has no key 'default'", "Did you mean defaults?"]),
        (
            grid(columns={**GRID["columns"], "sigma": [1.0, 2.0]}),
            ["a grid's columns have 'sigma'", "no text holds {sigma}", "delete the column"],
        ),
    ],
)
def test_what_a_grid_may_not_say(tmp_path, content, words):
    text = refusal(tmp_path, content)
    assert all(word in text for word in ["table mine/one", *words]), text


ARMS = [
    {"label": "a", "job": "teacher", "eval": ["sampler.steps={calls}"]},
    {"label": "b", "job": "teacher", "eval": ["{more}", "sampler.steps={calls}"]},
]
VARY = [{"name": "one", "calls": 5, "more": []}, {"name": "two", "calls": 8, "more": ["seed=1"]}]


def test_a_file_of_claims_that_vary_is_one_claim_for_each_name(tmp_path):
    content = claim(ARMS, jobs=JOBS, title="{calls} calls", vary=VARY)
    folder = str(write(tmp_path, "mine/file", content, kind="claim"))
    own = [name for name in names("claim", config_dir=folder) if name.startswith("mine/")]
    assert own == ["mine/one", "mine/two"]
    one, two = (read_claim(name, config_dir=folder) for name in own)
    assert (one.name, one.title, two.title) == ("mine/one", "5 calls", "8 calls")
    assert one.arms[1].eval == ("sampler.steps=5",)
    assert two.arms[1].eval == ("seed=1", "sampler.steps=8")
    with pytest.raises(UsageError, match=r"no claim 'mine/file'"):
        read_claim("mine/file", config_dir=folder)


def test_a_table_that_varies_leaves_its_grids_names_to_them(tmp_path):
    rows = [{"solver": "{name_of_solver}", "published": "{numbers}"}]
    content = {
        **table([{**GRID, "rows": rows}], jobs=JOBS, title="{number}"),
        "vary": [
            {"name": "fid", "number": "FID", "name_of_solver": "a", "numbers": [1.0, 2.0]},
            {"name": "recall", "number": "recall", "name_of_solver": "b", "numbers": [0.1, 0.2]},
        ],
    }
    folder = str(write(tmp_path, "mine/file", content))
    fid, recall = (read_table(f"mine/{name}", config_dir=folder) for name in ("fid", "recall"))
    assert (fid.title, recall.title) == ("FID", "recall")
    assert [(row.label, row.published) for row in fid.rows] == [("a, 5", 1.0), ("a, 10", 2.0)]
    assert [(row.label, row.published) for row in recall.rows] == [("b, 5", 0.1), ("b, 10", 0.2)]


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        ([], ["vary is []", "list"]),
        ([{"calls": 5, "more": []}], ["name", "None"]),
        ([VARY[0], VARY[0]], ["'one'", "its own name"]),
        ([{"name": "one", "calls": 5}], ["{more}", "'one' in vary has no value"]),
        ([{**VARY[0], "cals": 5}], ["'cals'", "Did you mean calls?"]),
    ],
)
def test_what_claims_that_vary_may_not_say(tmp_path, vary, words):
    text = refusal(tmp_path, claim(ARMS, jobs=JOBS, vary=vary), kind="claim")
    assert all(word in text for word in ["claim mine/one", *words]), text


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
