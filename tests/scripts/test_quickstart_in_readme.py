"""The README's numbers of the quickstart are those that were measured."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "outputs" / "tables"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield importlib.import_module("quickstart_in_readme")
    sys.modules.pop("quickstart_in_readme", None)


def test_readme_and_page_follow_from_the_record(script):
    found = json.loads((TABLES / "quickstart.json").read_text(encoding="utf-8"))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert script.in_readme(text, found) == text
    assert script.page(found) == (TABLES / "quickstart.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="quickstart"):
        script.in_readme("no marks", found)


def test_a_run_becomes_the_record(script, monkeypatch, tmp_path):
    stored = json.loads((TABLES / "quickstart.json").read_text(encoding="utf-8"))
    run = tmp_path / "run"
    (run / "samples").mkdir(parents=True)
    manifest = {"choices": {"experiment": "a/b"}, "packages": {"torch": "2.15.0"}}
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    rows = [{"kimg": 1.0}, {"kimg": 2.0, "time/seconds": 8.2, "train/loss": 0.5}]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    evaluations = [{"records": []}, stored["evaluation"]]
    (run / "results.json").write_text(json.dumps({"evaluations": evaluations}), encoding="utf-8")
    for kimg, content in ((1, b"first"), (2, b"last")):
        (run / "samples" / f"grid-{kimg:010.3f}.png").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    script.TABLES.mkdir(parents=True)
    script.README.write_text(f"a\n{script.FIRST}old{script.LAST}\nb\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["script", "run", "a machine"])
    script.main()
    found = json.loads((script.TABLES / "quickstart.json").read_text(encoding="utf-8"))
    assert found["trained"] == {
        "kimg": 2.0, "seconds": 8, "images_per_second": 244, "loss": 0.5,
        "hardware": "a machine", "torch": "2.15.0",
    }  # fmt: skip
    text = script.README.read_text(encoding="utf-8")
    assert script.in_readme(text, found) == text
    assert text.startswith(f"a\n{script.FIRST}\nOn a machine, the training took 8 s ")
    assert text.endswith(f"{script.LAST}\nb\n")
    assert (script.TABLES / "quickstart.png").read_bytes() == b"last"
    assert "a/b" in (script.TABLES / "quickstart.md").read_text(encoding="utf-8")
