"""From rows to jobs: what is shared, what comes first, what is refused."""

from dataclasses import replace

import pytest

from flowexp.cli import main
from flowexp.config.problems import ConfigError
from flowexp.errors import UsageError
from flowexp.tables.jobs import all_jobs, significant
from tests.tables.files import claim, job, table, write
from tests.tables.planned import by_title, identities, plan, planned_claim


def test_rows_share_their_trainings(tmp_path):
    jobs = {"teacher": job(), "child": job("seed=3", parents={"init": "teacher"})}
    rows = [
        {"label": "teacher, 1 step", "job": "teacher", "eval": ["sampler.steps=1"]},
        {"label": "teacher, 2 steps", "job": "teacher", "eval": ["sampler.steps=2"]},
        {"label": "child", "job": "child"},
        {"label": "child again", "job": "child"},
    ]
    one = plan(tmp_path, table(rows, jobs=jobs))
    found = all_jobs(one.rows)
    assert [job.verb for job in found].count("train") == 2
    assert [job.verb for job in found].count("eval") == 3
    places = {job.identity: number for number, job in enumerate(found)}
    for each in found:
        assert all(places[need.identity] < places[each.identity] for need in each.needs)


def test_parents_are_of_the_same_seed_and_named_on_the_command_line(tmp_path):
    jobs = {"teacher": job(), "child": job(parents={"init": "teacher"})}
    one = plan(tmp_path, table([{"label": "a", "job": "child"}], jobs=jobs), seeds=[4, 5])
    found = by_title(one)
    for seed in (4, 5):
        teacher = found[f"a (teacher): train, seed {seed}"]
        child = found[f"a (child): train, seed {seed}"]
        assert f"seed={seed}" in teacher.arguments()
        assert f"init={teacher.directory}" in child.arguments()
        evaluation = found[f"a: eval, seed {seed}"]
        assert f"run={child.directory}" in evaluation.arguments()
        assert f"dirs.run={evaluation.directory}" in evaluation.arguments()


def test_two_recipes_of_one_training_are_scored_each_with_its_own_sampler(tmp_path):
    rows = [
        {"label": "euler", **job("sampler=euler")},
        {"label": "heun", **job("sampler=heun")},
    ]
    one = plan(tmp_path, table(rows))
    euler, heun = (row.evaluations[0] for row in one.rows)
    assert euler.run.identity == heun.run.identity
    assert len(all_jobs(one.rows)) == 3
    assert euler.config["sampler"]["_target_"] != heun.config["sampler"]["_target_"]


def test_a_calibration_comes_before_the_evaluation(tmp_path):
    row = {"label": "a", **job("sampler=heun"), "calibrate": ["for=dpm_solver_v3"]}
    one = plan(tmp_path, table([row, {"label": "b", **job("sampler=heun")}]))
    evaluation, other = (row.evaluations[0] for row in one.rows)
    (calibration,) = evaluation.after
    assert calibration.verb == "calibrate"
    assert "calibration=dpm_solver_v3" in calibration.arguments()
    assert calibration.run is evaluation.run is other.run
    # beside the weights, where samplers look for it
    assert not any(text.startswith("dirs.run=") for text in calibration.arguments())
    assert evaluation.identity != other.identity


def test_pairs_are_a_job(tmp_path):
    jobs = {
        "teacher": job(),
        "pairs": {"verb": "pairs", "parents": {"run": "teacher"}, "overrides": ["num=5000"]},
        "child": job("coupling=pairs", parents={"pairs": "pairs"}),
    }
    content = table([{"label": "a", "job": "child"}], jobs=jobs)
    one = by_title(plan(tmp_path, content))
    pairs = one["a (pairs): pairs, seed 0"]
    assert "num=5000" in pairs.arguments()
    assert f"pairs={pairs.directory}" in one["a (child): train, seed 0"].arguments()
    cheap = plan(tmp_path, content, budget="cpu", changes=["budget.max_pairs=70"])
    assert by_title(cheap)["a (pairs): pairs, seed 0"].config["num"] == 70


def test_every_problem_is_reported_with_its_row(tmp_path):
    rows = [
        {"label": "misspelt", **job("optimizer.lrr=1")},
        {"label": "good", **job()},
        {"label": "impossible", **job("path=edm", "timestep=logit_normal")},
        {"label": "bad eval", **job(), "eval": ["sampler.stps=3"]},
        {"label": "no such recipe", "experiment": "toy2d/rectified_flw"},
    ]
    with pytest.raises(ConfigError) as found:
        plan(tmp_path, table(rows))
    text = str(found.value)
    for words in (
        *("misspelt: train", "optimizer.lr", "impossible: train", "timestep"),
        *("bad eval: eval", "sampler.steps", "no such recipe", "rectified_flow"),
    ):
        assert words in text, words
    assert "good" not in text


def test_the_table_is_the_group_of_loggers_that_know_groups(tmp_path):
    row = {"label": "D=64, one", **job()}
    one = plan(tmp_path, table([row]), extra={"train": ["logger=wandb"]})
    training = one.rows[0].evaluations[0].run
    assert "logger.wandb.group=mine/one" in training.arguments()
    assert "logger.wandb.job_type='D=64, one'" in training.arguments()
    plain = plan(tmp_path, table([row])).rows[0].evaluations[0].run
    assert training.identity == plain.identity


def test_only_some_rows_are_wanted(tmp_path):
    rows = [{"label": "D=64", **job()}, {"label": "D=inf", **job(), "eval": ["weights=raw"]}]
    one = plan(tmp_path, table(rows))
    wanted = {only: replace(one, only=only) for only in ("INF", "D=*", "nothing")}
    assert [row.spec.label for row in wanted["INF"].wanted] == ["D=inf"]
    assert len(wanted["D=*"].wanted) == len(one.wanted) == 2
    with pytest.raises(UsageError, match="D=64; D=inf"):
        _ = wanted["nothing"].wanted


def test_of_the_claims_only_those_of_a_name_are_planned(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = {"a": job(), "b": job("optimizer.lr=1e-3")}
    arms = [{"label": name, "job": name} for name in jobs]
    for name in ("mine/first", "mine/second"):
        write(tmp_path, name, claim(arms, jobs=jobs, seeds=[0, 1, len(name)]), kind="claim")
    command = ["table", "claims", "dry=commands", "--config-dir", str(tmp_path)]
    assert main([*command, "only=Mine/F"]) == 0
    shown = capsys.readouterr().out
    # two arms, each a training and an evaluation for three seeds; without a terminal, no bar
    assert "\n12 jobs, 0 done." in shown
    head, first, *_ = shown.splitlines()
    assert head == "claims_Mine_F: checking every command, budget cpu"
    assert first.startswith("to run")
    assert main([*command, "only=no_such_claim"]) == 2
    assert "no claim matches 'no_such_claim'" in capsys.readouterr().err


def test_every_row_is_counted_while_commands_are_checked(tmp_path):
    rows = [{"label": "a", **job()}, {"label": "b", **job("optimizer.lrr=1")}]
    counted = []
    with pytest.raises(ConfigError):
        plan(tmp_path, table(rows), on_row=lambda: counted.append(1))
    assert len(counted) == 2


def test_arms_relative_to_another_evaluation(tmp_path):
    jobs = {"a": job(), "b": job("optimizer.lr=1e-3")}
    noisy = ["sampler/perturbation=state_noise", "sampler.perturbation.scale=0.1"]
    arms = [{"label": n, "job": n, "eval": noisy, "relative_to": []} for n in jobs]
    one = planned_claim(tmp_path, claim(arms, jobs=jobs), seeds=[7])
    assert [(len(row.evaluations), len(row.baselines)) for row in one.rows] == [(1, 1), (1, 1)]
    assert not any(row.scaled for row in one.rows)


def test_a_claim_that_the_budget_does_not_pay_for_is_left_out(tmp_path):
    jobs = {"a": job(), "b": job("optimizer.lr=1e-3")}
    arms = [{"label": name, "job": name} for name in jobs]
    one = planned_claim(tmp_path, claim(arms, jobs=jobs, budget="gpu_hour"))
    assert one.rows == ()
    assert one.result(budget="cpu").verdict == "missing"


def test_a_training_waits_for_the_calibrations_it_names(tmp_path):
    jobs = {
        "teacher": job("sampler=heun"),
        "costs": {"verb": "calibrate", "overrides": ["for=boss"], "parents": {"run": "teacher"}},
        "child": job(parents={"init": "teacher"}, after=["costs"]),
        "sibling": job(parents={"init": "teacher"}),
    }
    rows = [{"label": "a", "job": "child"}, {"label": "b", "job": "sibling"}]
    first, second = plan(tmp_path, table(rows, jobs=jobs)).rows
    (costs,) = first.evaluations[0].run.after
    assert costs.verb == "calibrate"
    assert costs.run.identity == second.evaluations[0].run.needs[0].identity
    assert not any("calibrate" in text for text in first.evaluations[0].run.arguments())
    assert second.evaluations[0].run.after == ()
    assert first.evaluations[0].run.identity != second.evaluations[0].run.identity


def test_an_identity_holds_no_folder_that_lasts_as_long_as_the_planning(tmp_path):
    """A training whose own config names the run it started from: its evaluations see that too."""
    child = job("sampler=euler", "sampler/time_grid=bellman", parents={"init": "teacher"})
    content = table([{"label": "a", "job": "child"}], jobs={"teacher": job(), "child": child})
    first, second = (plan(tmp_path / name, content) for name in ("one", "two"))
    assert identities(first) == identities(second)
    counted = [significant(one.config, verb=one.verb) for one in all_jobs(first.rows)]
    assert "flowexp-table-" not in str(counted)


def test_two_parents_of_one_identity_that_sample_differently(tmp_path):
    """One weights, two samplers: the folders of both are replaced in what follows from both."""
    jobs = {
        "euler": job("sampler=euler"),
        "heun": job("sampler=heun"),
        "pairs": {"verb": "pairs", "parents": {"run": "heun"}, "overrides": ["num=500"]},
        "child": job(
            *("coupling=pairs", "sampler=euler", "sampler/time_grid=bellman"),
            parents={"init": "euler", "pairs": "pairs"},
        ),
    }
    content = table([{"label": "a", "job": "child"}], jobs=jobs)
    first, second = (plan(tmp_path / name, content) for name in ("one", "two"))
    euler, pairs = first.rows[0].evaluations[0].run.needs
    assert pairs.run is not euler
    assert pairs.run.identity == euler.identity
    assert identities(first) == identities(second)
    counted = [significant(one.config, verb=one.verb) for one in all_jobs(first.rows)]
    assert "flowexp-table-" not in str(counted)
