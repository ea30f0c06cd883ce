"""What the verbs print fits the terminal, and survives being pasted."""

import logging
import shlex
import sys

import pytest

from flowexp.apps import doctor  # fmt: skip
from flowexp.apps import list as list_
from flowexp.apps.terminal import beside, logging_to, table
from flowexp.config.override_text import command

TITLE = "FD[EfficientNet-Lite0 b4, 64px] 2k on fashion10k"
RUN = "outputs/2026-11-29/20-11-46-experiment-fashion10k-rectified_flow-seed-1"


def longest(text: str) -> int:
    return max(map(len, text.splitlines()))


def test_rows_that_fit_are_aligned_as_they_are() -> None:
    assert table([(TITLE, "182.7"), ("NFE", "31")], width=80).splitlines() == [
        f"  {TITLE}  182.7",
        f"  {'NFE':<{len(TITLE)}}  31",
    ]


def test_long_values_are_folded_between_words_below_their_beginning() -> None:
    note = " ".join(["a caveat that belongs beside the number"] * 4)
    lines = table([("NFE", "31"), ("note", note)], width=80).splitlines()
    assert lines[0] == "  NFE   31"
    assert lines[1].startswith("  note  a caveat")
    assert all(line.startswith("        ") for line in lines[2:])
    assert " ".join(" ".join(lines[1:]).split()) == f"note {note}"
    assert longest("\n".join(lines)) <= 80


def test_a_long_name_has_its_value_beside_it_or_below() -> None:
    title = "straightness S/N[100 Euler steps in linear-path time] 1k on eight_gaussians"
    text = table([(TITLE, "182.7"), (title, "0.1234 +- 0.001 (standard error)")], width=80)
    assert text.splitlines()[0] == f"  {TITLE}  182.7"
    assert text.splitlines()[1:] == [f"  {title}", "      0.1234 +- 0.001 (standard error)"]


@pytest.mark.parametrize("run", [RUN, "/" + "a-long-folder/" * 8])
def test_a_path_is_never_broken(run: str) -> None:
    lines = table([("generated and scored", "2000 samples"), ("run directory", run)], width=80)
    assert run in [line.strip() for line in lines.splitlines()] or f"  {run}" in lines


def test_a_folded_command_can_be_pasted() -> None:
    whole = command("train", coupling="pairs", init=RUN, **{"dirs.run": "a folder " * 12})
    text = table([("store", "pairs"), ("next", whole)], width=80)
    pasted = text.partition("next")[2]
    assert len(pasted.strip().splitlines()) > 1
    assert shlex.split(pasted.replace("\\\n", " ")) == shlex.split(whole)


def test_without_a_terminal_there_are_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "__stdout__", None)
    assert 70 < longest(table([("note", "word " * 60)])) <= 80
    monkeypatch.setenv("COLUMNS", "120")
    assert 110 < longest(beside("note ", "word " * 60)) <= 120


def test_list_fits_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    list_.main([])
    everything = capsys.readouterr().out
    assert longest(everything) <= 80
    assert "fashion10k/rectified_flow," in everything.split()
    list_.main(["sampler", "metric"])
    assert longest(capsys.readouterr().out) <= 80


def test_doctor_folds_what_it_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    doctor._line(False, "dataset=cifar10", "it was not found " * 5, "Set FLOWEXP_DATA " * 6)
    printed = capsys.readouterr().out
    assert longest(printed) <= 80
    assert printed.startswith("missing  dataset=cifar10")


def test_records_go_to_what_stderr_is_when_they_are_logged(tmp_path, monkeypatch) -> None:
    import io

    with logging_to(tmp_path / "log.txt"):
        monkeypatch.setattr(sys, "stderr", proxy := io.StringIO())
        logging.getLogger("flowexp.test").warning("above the bar")
    assert proxy.getvalue() == "flowexp: above the bar\n"
