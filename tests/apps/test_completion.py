"""What Tab offers."""

import shutil
import subprocess
import sys

import pytest

from flowexp.apps import VERBS
from flowexp.apps.completion import candidates
from flowexp.cli import main


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    run = tmp_path / "outputs" / "train" / "day" / "12-00"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("{}", encoding="utf-8")
    (tmp_path / "weights.pkl").touch()
    (tmp_path / "two words").touch()
    monkeypatch.chdir(tmp_path)


RUN = "outputs/train/day/12-00"


@pytest.mark.parametrize(
    ("words", "word", "expected"),
    [
        ((), "", {f"{verb} " for verb in VERBS}),
        ((), "ca", {"calibrate "}),
        (("train",), "samp", {"sampler=", "sampler.", "sampler/time_grid=", "sampler/variable=",
                              "sampler/perturbation="}),
        (("train",), "sampler=he", {"sampler=heun ", "sampler=heun3 "}),
        (("train",), "sampler=euler,he", {"sampler=euler,heun ", "sampler=euler,heun3 "}),
        (("train",), "experiment=toy2d/", {"experiment=toy2d/imm ", "experiment=toy2d/ot_cfm ",
                                           "experiment=toy2d/rectified_flow ",
                                           "experiment=toy2d/sf2m ", "experiment=toy2d/wcfm "}),
        (("train",), "autoencoder=", {"autoencoder=folder ", "autoencoder=none ",
                                      "autoencoder=outputs/", f"autoencoder={RUN} ",
                                      "autoencoder=two words ", "autoencoder=weights.pkl "}),
        (("train",), "autoencoder=out", {"autoencoder=outputs/"}),
        (("train", "path=pfgmpp"), "path.D", {"path.D="}),
        (("train",), "trainer.max_k", {"trainer.max_kimg="}),
        (("train", "sampler=nothing"), "trainer.max_k", {"trainer.max_kimg="}),
        (("train",), "init=", {f"init={RUN} ", "init=outputs/", "init=weights.pkl ",
                               "init=two words "}),
        (("eval",), f"run={RUN[:-3]}", {f"run={RUN} "}),
        (("eval",), "batch_size=", {"batch_size=256 "}),
        (("sample",), "grid=", {"grid=true ", "grid=false "}),
        (("check",), "path=lin", {"path=linear ", "path=linear_vp "}),
        (("calibrate",), "for=b", {"for=boss "}),
        (("table",), "edm/", {"edm/table2 ", "edm/table3 ", "edm/table4 "}),
        (("table",), "ot_cfm/s", {"ot_cfm/straightens "}),
        (("compare",), "outputs/train/day/", {f"{RUN} "}),
        (("import",), "wei", {"weights.pkl "}),
        (("list",), "sampler/time", {"sampler/time_grid "}),
        (("completion",), "f", {"fish "}),
        (("doctor",), "", set()),
        (("nothing",), "", set()),
    ],
)  # fmt: skip
def test_candidates(words, word, expected):
    assert set(candidates(words, word)) == expected


@pytest.mark.parametrize(
    ("line", "word", "expected"),
    [
        ("flowexp train sampler=he", "he", ["heun ", "heun3 "]),  # bash: = ends a word
        ("flowexp train sampler=he", "sampler=he", ["sampler=heun ", "sampler=heun3 "]),
        ("flowexp eval run=", "=", ["outputs/", f"{RUN} ", "weights.pkl "]),
        ("flowexp eval 'run=we", "'run=we", []),
    ],
)
def test_the_shells_own_word_decides_what_is_written(line, word, expected, capsys):
    assert main(["completion", "query", line, word]) == 0
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_asks_the_command(capsys):
    assert main(["train", "--shell-completion", "install=bash"]) == 0
    installed = capsys.readouterr().out
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == installed
    script = (
        f'{installed}\nflowexp() {{ "{sys.executable}" -m flowexp "$@"; }}\n'
        'COMP_LINE="flowexp train sampler=dop"\nCOMP_POINT=${#COMP_LINE}\n'
        '_flowexp flowexp dop =\nprintf "%s|" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "dopri5 |dopri5_log |"


@pytest.mark.parametrize("arguments", [[], ["tcsh"], ["query"]])
def test_another_shell_is_refused(arguments, capsys):
    assert main(["completion", *arguments]) == 2
    assert "flowexp completion bash|zsh|fish" in capsys.readouterr().err
