"""The laws of identity: what changes it, what does not, and that it goes from parent to child."""

import pytest

from flowexp.config.override_text import override
from flowexp.tables import plan as planning
from flowexp.tables.jobs import identity_of, significant
from tests.tables.files import job, table
from tests.tables.planned import by_title, identities, plan

JOBS = {"teacher": job(), "child": job(parents={"init": "teacher"})}
ROWS = [{"label": "a", "job": "child", "eval": ["sampler.steps=3"]}]


def changed(folder, *, teacher=(), child=(), evaluation=(), **given):
    """Identities of teacher, child and evaluation with further overrides."""
    jobs = {
        "teacher": job(*teacher),
        "child": job(*child, parents={"init": "teacher"}),
    }
    rows = [{**ROWS[0], "eval": [*ROWS[0]["eval"], *evaluation]}]
    found = by_title(plan(folder, table(rows, jobs=jobs), **given))
    return [found[f"a{what}, seed 0"].identity
            for what in (" (teacher): train", " (child): train", ": eval")]  # fmt: skip


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    return changed(tmp_path_factory.mktemp("unchanged"))


def moved(before, after):
    return [a != b for a, b in zip(before, after, strict=True)]


def test_teacher_child_and_evaluation_differ(unchanged):
    assert len(set(unchanged)) == 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"teacher": ["optimizer.lr=1e-3"]}, [True, True, True]),
        ({"child": ["optimizer.lr=1e-3"]}, [False, True, True]),
        ({"evaluation": ["sampler.steps=4"]}, [False, False, True]),
        ({"evaluation": ["weights=raw"]}, [False, False, True]),
        ({"teacher": ["network.depth=2"], "child": ["network.depth=2"]}, [True, True, True]),
        # what is sampled from a model does not change it, but is what an evaluation scores
        ({"child": ["sampler=heun"]}, [False, False, True]),
    ],
)
def test_a_change_reaches_what_depends_on_it(unchanged, change, expected, tmp_path):
    assert moved(unchanged, changed(tmp_path, **change)) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": ["logger=none", "trainer.log_every=1", "trainer.checkpoint_kimg=null"]},
        {"child": ["callbacks=progress", "trainer.accelerator=cpu", "trainer.devices=1"]},
        {"evaluation": ["batch_size=7", "device=cpu"]},
        {"extra": {"train": ["trainer.micro_batch=8"], "eval": ["batch_size=3"]}},
    ],
)
def test_what_changes_no_result_changes_no_identity(unchanged, change, tmp_path):
    assert changed(tmp_path, **change) == unchanged


def test_the_order_of_overrides_and_the_spelling_of_numbers_do_not_matter(tmp_path):
    some = ["optimizer.lr=1e-3", "network.depth=2", "trainer.max_kimg=2"]
    other = ["trainer.max_kimg=2.0", "network.depth=2", "optimizer.lr=0.001"]
    one, two = (
        identities(plan(tmp_path, table([{"label": "a", **job(*overrides)}])))
        for overrides in (some, other)
    )
    assert one == two


def test_seeds_are_different_jobs(tmp_path):
    found = identities(plan(tmp_path, table([{"label": "a", **job()}]), seeds=[0, 1, 2]))
    assert len(set(found)) == 3


def test_the_place_of_the_jobs_does_not_matter(unchanged, tmp_path):
    assert changed(tmp_path / "elsewhere with a, space") == unchanged


def test_what_is_left_out_is_left_out_at_any_depth():
    config = {
        "seed": 1.0,
        "dirs": {"run": "x"},
        "dataset": {"root": "/data", "size": 2.5},
        "trainer": {"devices": 8, "max_kimg": 20.0},
        "sampler": {"steps": 3},
    }
    assert significant(config, verb="train") == {
        "seed": 1, "dataset": {"size": 2.5}, "trainer": {"max_kimg": 20},
    }  # fmt: skip
    assert significant(config, verb="eval")["sampler"] == {"steps": 3}
    assert identity_of("train", config) != identity_of("pairs", config)


def test_overrides_are_quoted_where_hydra_needs_it():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    for text in ("outputs/jobs/train/ab12", "a b/c=d, e", "D=64, 'x' \"y\"", "[1,2]", "{a:b}"):
        assert parser.parse_override(override("key", text)).value() == text
    assert parser.parse_override(override("key", ["a", "b c"])).value() == ["a", "b c"]


def checked(tmp_path, monkeypatch, content, seeds):
    """A plan, and the commands that it checked."""
    made = []

    def check(verb, given, *, config_dir):
        made.append(given)
        return original(verb, given, config_dir=config_dir)

    original = planning.check
    with monkeypatch.context() as patch:
        patch.setattr(planning, "check", check)
        return plan(tmp_path, content, seeds=seeds), made


def test_commands_that_differ_in_the_seed_of_a_training_are_checked_once(tmp_path, monkeypatch):
    content = table([{"label": "a", "job": "one"}], jobs={"one": job()})
    _, alone = checked(tmp_path / "1", monkeypatch, content, [3])
    several, made = checked(tmp_path / "3", monkeypatch, content, [3, 4, 5])
    assert len(made) == len(alone)
    assert [one.run.config["seed"] for one in several.rows[0].evaluations] == [3, 4, 5]
    (row,) = plan(tmp_path / "4", content, seeds=[4]).rows
    assert several.rows[0].evaluations[1].identity == row.evaluations[0].identity


def test_a_value_that_follows_from_the_seed_is_that_of_each_seed(tmp_path):
    jobs = {"one": job("trainer.log_every=${seed}")}
    (row,) = plan(tmp_path, table([{"label": "a", "job": "one"}], jobs=jobs), seeds=[3, 4]).rows
    assert [one.run.config["trainer"]["log_every"] for one in row.evaluations] == [3, 4]
