"""The script that times training steps in turn: whose steps, and what it writes of them."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

from flowexp.files import write_json
from tests.e2e.command import flowexp
from tests.tables.files import TRAIN
from tests.tables.render.test_over_nfe import row, table

_FILE = Path(__file__).resolve().parents[2] / "scripts" / "bench_training_steps.py"
_SPEC = importlib.util.spec_from_file_location("bench_training_steps", _FILE)
bench = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(bench)


def test_the_first_run_of_each_method_takes_steps(tmp_path, capsys):
    done = flowexp("train", "experiment=toy2d/rectified_flow", *TRAIN, "dirs.run=run", cwd=tmp_path)
    assert done.code == 0, done.err
    runs = (str(tmp_path / "run"), str(tmp_path / "another seed"))
    rows = [replace(row(f"{name}, {n}", n, measured=1.0), runs=runs, method=name)
            for name in ("A", "B") for n in (1, 2)]  # fmt: skip
    measured = write_json(tmp_path / "table.json", table(*rows).to_dict())
    given = [str(measured), "--rounds=2", "--steps=2", f"--out={tmp_path / 'steps'}"]
    assert bench.main(given) == 0
    found = json.loads((tmp_path / "steps.json").read_text())["rows"]
    assert [(r["method"], r["batch_size"]) for r in found] == [("A", 64), ("B", 64)]
    assert all(0.0 < r["ms_per_step"] < 1000.0 for r in found)
    assert found[0]["ratios"] == [1.0, 1.0]
    assert 0.2 < found[1]["ratio"] < 5.0  # the same steps, on a machine that may be busy
    text = (tmp_path / "steps.md").read_text()
    assert f"| A | 64 | {found[0]['ms_per_step']:.1f} | 1.00 (1.00 .. 1.00) |" in text
    assert text in capsys.readouterr().out


@pytest.mark.parametrize(
    ("runs", "words"),
    [((), "has no runs of a table"), (("gone",), "cannot be read: [Errno 2]")],
)
def test_a_table_without_runs_is_refused(tmp_path, capsys, runs, words):
    content = table(replace(row("A, 1", 1), runs=runs)).to_dict()
    assert bench.main([str(write_json(tmp_path / "table.json", content))]) == 2
    assert words in capsys.readouterr().out
