"""The script that draws claims over evaluations."""

import importlib
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from tests.tables.render.test_over_nfe import SOLVERS, claim

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def main(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("plot_solvers").main
    sys.modules.pop("plot_solvers", None)


def written(folder, *results):
    files = [folder / f"{number}.json" for number in range(len(results))]
    for file, result in zip(files, results, strict=True):
        file.write_text(json.dumps(result.to_dict()))
    return [str(file) for file in files]


def test_claims_become_one_picture(main, tmp_path, capsys):
    out = tmp_path / "new" / "solvers.svg"
    files = written(tmp_path, claim(5), claim(8), claim(10))
    assert main([*files, "--out", str(out), "--title", "Fast & few"]) == 0
    root = ElementTree.fromstring(out.read_text())
    assert root[0].text == "Fast & few"
    assert "UniPC (measured): 10.00 ± 0.10 (3 seeds) at 5" in root[1].text
    assert str(out) in capsys.readouterr().out
    assert main([*files, "--out", str(out.with_suffix(".png"))]) == 0
    with Image.open(out.with_suffix(".png")) as image:
        assert image.format == "PNG"


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ([claim(5), claim(8)], "three numbers of evaluations"),
        ([SOLVERS], "three numbers of evaluations"),
        ([claim(5), claim(8, runs=("other",))], "different runs"),
    ],
)
def test_what_cannot_be_drawn_is_said(main, tmp_path, capsys, results, words):
    out = tmp_path / "solvers.svg"
    assert main([*written(tmp_path, *results), "--out", str(out)]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_a_file_of_something_else_is_named(main, tmp_path, capsys):
    (tmp_path / "x.json").write_text("{}")
    assert main([str(tmp_path / "x.json")]) == 2
    assert "x.json" in capsys.readouterr().err
