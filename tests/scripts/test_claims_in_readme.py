"""The README's claims are those that were measured."""

import dataclasses
import importlib
import json
import math
import sys
from pathlib import Path

import pytest

from tests.tables.render.test_over_nfe import claim

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield importlib.import_module("claims_in_readme")
    sys.modules.pop("claims_in_readme", None)


def test_the_readme_shows_what_lies_in_the_tables(script):
    for file in script.FILES:
        text = (ROOT / file).read_text()
        assert script.written(text, ROOT / "outputs" / "tables") == text


def test_a_row_is_a_claim_and_a_missing_arm_is_named(script, tmp_path):
    done = dataclasses.replace(claim(5), p_value=0.0004, verdict="holds")
    arms = (dataclasses.replace(done.arms[0], measured=None, status="missing"), *done.arms[1:])
    missing = dataclasses.replace(
        done, name="z/last", arms=arms, verdict="missing", p_value=math.nan
    )
    for number, result in enumerate([missing, done]):
        (tmp_path / f"claim_{number}.json").write_text(json.dumps(result.to_dict()))
    rows = script.table(tmp_path).splitlines()[2:]
    assert len(rows) == 2
    first, last = (row.strip("| ").split(" | ") for row in rows)
    assert first[0] == done.name
    assert first[1].startswith("FD[")
    assert first[-1] == "holds, p < 0.001"
    assert last[0] == "z/last"
    assert last[2] == f"{arms[0].label}: missing"
    assert last[-1] == "missing"


def test_only_what_lies_between_the_marks_is_replaced(script, tmp_path):
    text = f"before\n{script.FIRST}\nold\n{script.LAST}\nafter\n"
    new = script.written(text, tmp_path)
    assert new.startswith("before\n")
    assert new.endswith("\nafter\n")
    assert "old" not in new
    with pytest.raises(ValueError, match="claims"):
        script.written("no marks", tmp_path)
    with pytest.raises(ValueError, match="no results of the claims"):
        script.written(f"<!-- claims: a/b -->{script.LAST}", tmp_path)
