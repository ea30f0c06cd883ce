"""The script that times the arms of claims finds how each of them was sampled."""

import importlib.util
import json
from pathlib import Path

import pytest

from flowexp.tables.results import Measurement, RowResult

_FILE = Path(__file__).resolve().parents[2] / "scripts" / "time_claims.py"
_SPEC = importlib.util.spec_from_file_location("time_claims", _FILE)
timing = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(timing)


def arm(run, values=(1.5, 2.5)):
    measured = Measurement(
        values=values, mean=2.0, spread=0.5, minimum=min(values), seeds=(0, 1), title="FD",
        protocol={}, n_gen=8, nfe=3.0, seconds=1.0, device="cpu", floor=None, notice=None,
    )  # fmt: skip
    return RowResult(
        label="Heun", published=None, published_source=None, published_nfe=None, verified=False,
        measured=measured, status="done", log=None, scaled=False, mismatch=(), runs=(str(run),),
    )  # fmt: skip


def evaluated(jobs: Path, name: str, value: float, *told: str):
    folder = jobs / "eval" / name
    folder.mkdir(parents=True)
    content = {"evaluations": [{"records": [{"value": value}]}]}
    (folder / "results.json").write_text(json.dumps(content))
    command = ["flowexp", "eval", "metric=fd_raw", *told, f"dirs.run={folder}"]
    (folder / "job.json").write_text(json.dumps({"command": command}))


def test_the_evaluation_of_an_arm_is_that_of_its_number_and_run(tmp_path):
    run = tmp_path / "train" / "a"
    evaluated(tmp_path, "1", 9.5, "sampler=euler", f"run={run}")
    evaluated(tmp_path, "2", 1.5, "sampler=dpm2", "run=elsewhere")
    evaluated(tmp_path, "3", 1.5, "sampler=heun", f"run={run}")
    assert timing.evaluation_of(arm(run)) == ["sampler=heun", f"run={run}"]


def test_an_arm_whose_jobs_are_gone_is_named(tmp_path):
    with pytest.raises(ValueError, match="Heun: the job that evaluated"):
        timing.evaluation_of(arm(tmp_path / "train" / "a"))


def test_the_table_says_what_was_measured():
    row = {"claim": "a/b", "arm": "Heun", "nfe": 9.0, "ms_per_image": 1.25,
           "rounds": [1.0, 1.5], "fd": 200.4, "spread": 3.0}  # fmt: skip
    parts = {"command": "c", "date": "d", "hardware": "h", "torch": "t", "protocol": "p"}
    text = timing.report({**parts, "rows": [row]})
    assert "| a/b | Heun | 9 | 1.25 | 1.00 .. 1.50 | 200 ± 3 |" in text
