"""Overrides survive Hydra's grammar, and printed commands a shell."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from flowexp.apps.terminal import shown
from flowexp.config.override_text import command, override, typed
from flowexp.config.overrides import parse
from flowexp.config.sources import run_in

TEXTS = [
    "a=b", "a b", "a,b", "it's", 'say "x"', "é→", "$HOME", "a;b", "(x)", "[x]", "{x}", "#x", "a&b",
    "a\nb", "a\\b", "a\\", "a\\'b", "\\'", "'q'", "7", "007", "1_000", "1e3", ".5", "null", "True",
    "inf", "NaN", "", " lead", "trail ", "~x", "a|b", "*", "-x", "a\\\\b", "ab\\\\", "x\ty", "!x",
    "choice(1,2)", "a@b", "`ls`", "%s", "a:b", "outputs/2026-01-01/7", "a${b}c",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_hydra_reads_what_was_meant(text):
    parser = OverridesParser.create()
    assert parser.parse_override(override("run", text)).value() == text
    assert parser.parse_override(override("run", [text, text])).value() == [text, text]


def test_pasted_commands_arrive(tmp_path):
    """Through a real shell, then Hydra, then OmegaConf; of all texts in one shell."""
    stub = tmp_path / "flowexp"
    stub.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    stub.chmod(0o755)
    script = "\n".join(command("eval", run=text, pairs=Path(text) / "pairs") for text in TEXTS)
    done = subprocess.run(
        ["bash", "-c", script], env={"PATH": f"{tmp_path}:/bin:/usr/bin"}, capture_output=True,
        text=True, check=True, encoding="utf-8",
    )  # fmt: skip
    assert done.stderr == ""
    for text, line in zip(TEXTS, done.stdout.splitlines(), strict=True):
        verb, *given = json.loads(line)
        assert verb == "eval"
        parsed, problems = parse(given)
        assert problems == []
        config = OmegaConf.create({o.key_or_group: o.value() for o in parsed})
        assert OmegaConf.to_container(config, resolve=True) == {
            "run": text,
            "pairs": str(Path(text) / "pairs"),
        }
        assert run_in(given) == text


def test_what_cannot_be_read_is_answered_with_what_can(tmp_path, monkeypatch):
    (problem,) = parse(["run=outputs/lr=1, b"])[1]
    assert problem.remedy.endswith(typed("run", "outputs/lr=1, b"))
    monkeypatch.chdir(tmp_path)
    assert command("eval", run=shown(tmp_path / "a b")) == """flowexp eval 'run='"'"'a b'"'"''"""
    assert command("eval", run=shown(tmp_path / "plain")) == "flowexp eval run=plain"
    assert command("eval", trust=["a", "b"], run="x") == "FLOWEXP_TRUST=a,b flowexp eval run=x"
