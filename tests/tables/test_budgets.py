"""What budgets change, that they say so, and that every row of every table is sound under each."""

from contextlib import nullcontext

import pytest

from flowexp.errors import UsageError
from flowexp.tables import plan as planning
from flowexp.tables.budgets import Budget
from flowexp.tables.plan import Circumstances
from flowexp.tables.table_files import names, read_claim, read_table
from tests.tables.files import job, table
from tests.tables.planned import budget_node, plan


@pytest.fixture(scope="module", autouse=True)
def commands_checked_once(tmp_path_factory):
    """A command that several tables have is checked once, against stand-ins in one folder."""
    folder = str(tmp_path_factory.mktemp(planning._STANDINS))
    checked = {}

    def check(verb, given, *, config_dir):
        key = (verb, tuple(given), config_dir)
        if key not in checked:
            checked[key] = planning_check(verb, given, config_dir=config_dir)
        return checked[key]

    planning_check = planning.check
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "check", check)
        patch.setattr(planning.tempfile, "TemporaryDirectory", lambda **_: nullcontext(folder))
        yield


CONFIG = {
    "trainer": {"max_kimg": 1000.0, "checkpoint_kimg": 10.0},
    "lr_schedule": {"ramp_up_kimg": 50.0, "name": "x_kimg"},
    "ema": {"main": {"half_life_kimg": 200.0}, "short": {"half_life_kimg": 0.5}},
}
CHOICES = {"dataset": "cifar10", "network": "ddpmpp"}


def test_what_is_counted_in_kimg_keeps_its_share():
    found = Budget(name="x", max_kimg=100.0).of_training(CHOICES, CONFIG)
    assert set(found) == {
        "trainer.max_kimg=100.0",
        "trainer.checkpoint_kimg=10.0",
        "lr_schedule.ramp_up_kimg=5.0",
        # at most a twentieth of the length
        "ema.main.half_life_kimg=5.0",
        "ema.short.half_life_kimg=0.5",
    }


def test_a_training_that_is_short_enough_is_left_alone():
    assert Budget(name="x", max_kimg=1000.0).of_training(CHOICES, CONFIG) == ()
    halved = Budget(name="x", kimg_factor=0.5).of_training(CHOICES, CONFIG)
    assert "trainer.max_kimg=500.0" in halved


def test_conditions_see_what_earlier_ones_chose():
    when = {"dataset=cifar10|ffhq64": ["dataset=digits"], "dataset=digits": ["network.width=8"],
            "dataset=cifar10": ["never=1"], "network=dit": ["never=2"]}  # fmt: skip
    found = Budget(name="x", when=when).of_training(CHOICES, CONFIG)
    assert found == ("dataset=digits", "network.width=8")


def test_pairs_are_limited():
    budget = Budget(name="x", max_pairs=10)
    assert budget.pairs({"num": 11}) == ("num=10",)
    assert budget.pairs({"num": 10}) == budget.pairs({"seeds": "0-99"}) == ()


@pytest.mark.parametrize("values", [{"seeds": ()}, {"max_kimg": 0}, {"num_samples": -1}])
def test_impossible_budgets_are_refused(values):
    with pytest.raises(UsageError, match=f"budget.{next(iter(values))}"):
        Budget(name="x", **values)


def test_rows_that_were_scaled_say_so(tmp_path):
    rows = [{"label": "short", **job()}, {"label": "long", **job("trainer.max_kimg=2")}]
    content = table(rows)
    scaled = plan(tmp_path, content, changes=["budget.max_kimg=1"])
    assert [row.scaled for row in scaled.rows] == [False, True]


def test_fewer_samples_and_further_overrides_are_scaling_too(tmp_path):
    content = table([{"label": "a", **job()}])
    assert plan(tmp_path, content, changes=["budget.num_samples=32"]).rows[0].scaled
    assert plan(tmp_path, content, extra={"train": ["optimizer.lr=1e-5"]}).rows[0].scaled
    assert not plan(tmp_path, content, extra={"train": ["trainer.log_every=7"]}).rows[0].scaled


def test_a_scaled_parent_scales_its_children(tmp_path):
    jobs = {"teacher": job("trainer.max_kimg=2"), "child": job(parents={"init": "teacher"})}
    content = table([{"label": "a", "job": "child"}], jobs=jobs)
    assert plan(tmp_path, content, changes=["budget.max_kimg=1"]).rows[0].scaled
    assert not plan(tmp_path, content).rows[0].scaled


def test_the_full_budget_scales_nothing(tmp_path):
    read = read_table("pfgmpp/ffhq64")
    given = Circumstances(budget="full", node=budget_node("full"), root=tmp_path)
    one = planning.plan(read, given)
    assert not any(row.scaled for row in one.rows)
    assert one.scoring.num_samples == 50_000
    assert one.scoring.repeats == 3


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", names("table"))
def test_every_row_of_every_table_is_sound(name, tmp_path):
    given = Circumstances(budget="full", node=budget_node("full"), root=tmp_path, seeds=[0])
    read = read_table(name)
    one = planning.plan(read, given)
    assert [row.spec for row in one.rows] == list(read.rows)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("budget", ["cpu", "small"])
@pytest.mark.parametrize("name", names("table"))
def test_every_recipe_of_every_table_is_sound_when_scaled(name, budget, tmp_path):
    """Recipes of one experiment scale alike, whichever numbers of them a row changes.

    On the data of a laptop the samplers of each experiment have to fit as well.
    """
    given = Circumstances(budget=budget, node=budget_node(budget), root=tmp_path, seeds=[0])
    read = read_table(name)
    kinds = {}
    for row in read.rows:
        asked = row.eval if budget == "cpu" else ()
        groups = tuple(o for o in asked if "." not in o.partition("=")[0])
        kinds.setdefault((read.jobs[row.training].experiment, groups), row)
    some = read.model_copy(update={"rows": tuple(kinds.values())})
    assert len(planning.plan(some, given).rows) == len(kinds)


@pytest.mark.parametrize("name", names("claim"))
def test_every_claim_is_sound(name, tmp_path):
    read = read_claim(name)
    assert planning.plan(read, Circumstances(budget=read.budget, root=tmp_path, seeds=[0])).rows


def test_on_a_laptop_every_table_is_of_digits(tmp_path):
    given = Circumstances(budget="cpu", node=budget_node("cpu"), root=tmp_path)
    one = planning.plan(read_table("pfgmpp/cifar10"), given)
    for row in one.rows:
        training = row.evaluations[0].run
        assert training.config["dataset"]["_target_"].endswith("Digits")
        assert training.config["trainer"]["max_kimg"] <= 20
        assert row.scaled
        assert row.dataset == "cifar10"
