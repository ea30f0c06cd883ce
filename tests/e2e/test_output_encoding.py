"""Output in encodings that lack what is printed, and names of files that are not ASCII."""

import io
import re
import sys
from pathlib import Path

import pytest

import flowexp as package
from flowexp.cli import main
from flowexp.config.check import check
from tests.e2e.command import TINY, flowexp
from tests.report.runs import entry, make_run

CONFIG = check("train", TINY).config


@pytest.mark.parametrize(
    ("verb", "encoding"), [("compare", "ascii"), ("compare", "cp1252"), ("report", "ascii")]
)
def test_what_an_encoding_lacks_is_written_plainly(verb, encoding, tmp_path, monkeypatch):
    said, seeds = "→ “5 µm” ≤ 7…", ("0-199", "200-399")
    ranges = [
        entry(value, directory="/x", notice=said, seeds=of)
        for value, of in zip((1.0, 2.0), seeds, strict=True)
    ]
    for name in ("é R→x", "b"):
        make_run(tmp_path / name, entries=ranges, config=CONFIG)
    monkeypatch.chdir(tmp_path)
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    assert main([verb, "run='é R→x'", "run=b"]) == 0
    out.flush()
    text = out.buffer.getvalue().decode(encoding)
    ascii_only = encoding == "ascii"
    if verb == "compare":
        assert ("e R->x" if ascii_only else "é R->x") in text
        assert ("1.50 +- 0.71" if ascii_only else "1.50 ± 0.71") in text


def test_bytes_of_a_name_that_is_no_text_are_written_as_they_are(monkeypatch):
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", err)
    assert main(["nothing\udce9"]) == 2
    err.flush()
    assert b"nothing" in err.buffer.getvalue()


def test_a_locale_without_unicode_reads_and_writes_the_same_files(tmp_path):
    make_run(tmp_path / "é", entries=[entry(1.0)], config=CONFIG)
    make_run(tmp_path / "b", entries=[entry(2.0)], config=CONFIG)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = flowexp(
        "compare", "run='é'", "run=b", "out='ü.txt'", cwd=tmp_path, env=plain, fresh=True
    )
    assert (done.code, done.err) == (0, "")
    assert done.out.isascii()
    assert " é " in (tmp_path / "ü.txt").read_text(encoding="utf-8")


def test_every_text_file_names_its_encoding():
    """The encoding of a locale must not decide what is read or written."""
    opened = re.compile(r"\.(?:read_text|write_text|open)\((?:[^()]|\([^()]*\))*\)")
    for file in Path(package.__file__).parent.rglob("*.py"):
        for call in opened.findall(file.read_text(encoding="utf-8")):
            if call.startswith(".open") and not re.search(r'\("[awr]t?"|\(\)', call):
                continue
            assert "encoding=" in call, (file, call)
