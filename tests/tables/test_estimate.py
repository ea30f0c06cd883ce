"""Estimates of a table's time: which work is tried, how often, and what cannot be."""

import math

import pytest

from flowexp.apps.dry_run import show_jobs
from flowexp.config.check import check_job
from flowexp.tables import estimate, probes
from flowexp.tables.estimate import duration, estimated, work_of
from flowexp.tables.jobs import TableJob, all_jobs
from flowexp.tables.probes import Trial
from tests.tables.files import job, table
from tests.tables.planned import by_title, plan

AVERAGE = ["+ema.target={_target_: flowexp.training.ConstantEMA, decay: 0.9}",
           "objective.target.name=target"]  # fmt: skip
ROWS = [
    {"label": "a", "job": "teacher"},
    {"label": "b", "job": "teacher", "eval": ["sampler.steps=3"]},
    {"label": "c", "job": "longer", "calibrate": ["for=boss"]},
]
JOBS = {
    "teacher": job(),
    "longer": job("trainer.max_kimg=1.28", "optimizer.lr=1e-4", parents={"init": "teacher"}),
}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    return plan(tmp_path_factory.mktemp("planned"), table(ROWS, jobs=JOBS), seeds=[0, 1])


@pytest.fixture
def tried(monkeypatch):
    """Trials of known time; the list of those that were made."""
    made = []

    def training(config):
        made.append("train")
        return Trial(0.5, "1 CPU thread")

    def sampling(config, *, metrics):
        made.append(f"sample {config['sampler']['steps']}")
        return Trial(0.25, "2 CPU threads", without="the metric (no weights)")

    monkeypatch.setattr(probes, "try_training", training)
    monkeypatch.setattr(probes, "try_sampling", sampling)
    return made


def test_equal_work_is_tried_once_and_what_is_done_costs_nothing(planned, tried, monkeypatch):
    jobs = by_title(planned)
    done = {"a (teacher): train, seed 0", "a: eval, seed 0"}
    monkeypatch.setattr(TableJob, "is_done", lambda job: job.title in done)
    told = []
    found = estimated(all_jobs(planned.rows), on_trials=lambda done, of: told.append((done, of)))
    assert tried == ["train", "sample 2", "sample 3"]
    assert told == [(0, 3), (1, 3), (2, 3)]
    assert jobs["a (teacher): train, seed 0"].identity not in found
    times = {t: found[j.identity] for t, j in jobs.items() if j.identity in found}
    start = estimate._START_SECONDS
    assert times["a (teacher): train, seed 1"].seconds == start + 640 * 0.5
    assert times["c (longer): train, seed 0"].seconds == start + 1280 * 0.5
    assert times["b: eval, seed 0"].seconds == start + 64 * 0.25
    assert str(times["b: eval, seed 0"]) == "19 s without the metric (no weights)"
    assert str(times["c: calibrate, seed 0"]) == "not estimated: a calibration"


def test_a_dry_run_says_the_sum_and_what_it_assumes(planned, tried, capsys):
    config = {"dry": True, "launcher": {"sharing": 2}}
    show_jobs(all_jobs(planned.rows), config)
    said = capsys.readouterr().out
    assert "12 jobs, 0 done. Nothing was run (dry=true)." in said
    # 2 x (640 + 1280) images trained, 6 x 64 sampled, 10 starts, two at once
    total = (2 * 1920 * 0.5 + 6 * 64 * 0.25 + 10 * 3.0) / 2
    assert f"about {duration(total)} for 10 jobs, without 2 jobs that have no estimate" in said
    assert "2 jobs at once, on 1 CPU thread or 2 CPU threads." in said
    tried.clear()
    show_jobs(all_jobs(planned.rows), {**config, "dry": "commands"})
    assert tried == []
    assert "about" not in capsys.readouterr().out


def test_trials_need_neither_data_nor_teachers_nor_weights(planned, tmp_path):
    jobs = by_title(planned)
    found = estimated([jobs["c (longer): train, seed 0"], jobs["b: eval, seed 0"]])
    assert [one.words for one in found.values()] == ["", ""]
    assert all(one.seconds is not None and math.isfinite(one.seconds) for one in found.values())
    missing = by_title(
        plan(
            tmp_path / "missing",
            table(
                [
                    {"label": "x", "experiment": "cifar10/reflow_distill", "parents": {
                        "pairs": "p", "init": "t"}, "eval": ["metric=fid"]},
                ],
                jobs={
                    "t": {"experiment": "cifar10/rectified_flow"},
                    "p": {"verb": "pairs", "parents": {"run": "t"}},
                },
            ),
            budget="cpu",
        )
    )  # fmt: skip
    assert work_of(missing["x (p): pairs, seed 0"]).images == 5000
    config = missing["x: eval, seed 0"].config
    small = {**config["network"], "model_channels": 16, "channel_mult": [1], "num_blocks": 1}
    trial = probes.try_sampling({**config, "network": small}, metrics=True)
    assert math.isfinite(trial.seconds)


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective=psd_u", "timestep=sorted"],  # draws numbers of its own
        ["objective=psd_m", "timestep=sorted", "objective/target=average", *AVERAGE],
    ],
)
def test_trials_of_flow_maps_are_of_their_objectives(overrides):
    small = ["dataset=digits", "path=linear", "parameterization=average_velocity"]
    small += ["network.model_channels=16", "network.channel_mult=[1]", "network.pixel_unshuffle=1"]
    trial = probes.try_training(check_job("train", [*small, *overrides]).config)
    assert trial.without == ""
    assert trial.seconds > 0.0


def test_durations_are_short():
    given = (7.4, 90.0, 600.0, 3 * 3600.0, 30 * 3600.0, 5 * 86400.0)
    assert [duration(s) for s in given] == ["7 s", "90 s", "10 min", "3.0 h", "30 h", "5.0 days"]
