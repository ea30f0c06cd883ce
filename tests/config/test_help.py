"""``--help`` of every verb."""

import pytest

from flowexp import __version__
from flowexp.apps import VERBS
from flowexp.cli import main

_SCREEN = 60
WITH_GROUPS = (
    "train",
    "eval",
    "sample",
    "stream",
    "pairs",
    "calibrate",
    "import",
    "export",
    "table",
)


def _shown(capsys, *arguments) -> str:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_fits_a_screen(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    lines = _shown(capsys, verb, "--help").splitlines()
    assert lines[0].startswith(f"flowexp {verb}")
    assert len(lines) <= _SCREEN
    assert max(map(len, lines)) <= 80
    assert any(line.strip().startswith(f"flowexp {verb}") for line in lines)


@pytest.mark.parametrize("verb", WITH_GROUPS)
def test_each_group_has_one_line_with_what_it_is(verb, capsys):
    text = _shown(capsys, verb, "--help")
    groups = text.partition("number of options:\n")[2].partition("\n\n")[0].splitlines()
    rows = [line for line in groups if not line.startswith(" " * 10)]
    assert all(len(row.split()) >= 4 for row in rows)
    names = [row.split()[0] for row in rows]
    assert len(set(names)) == len(names)
    assert "launcher" in names
    assert not {"table", "claim", "hydra"} & set(names)


def test_every_choice_of_train_is_described(capsys):
    from flowexp.config.loader import RunAwareLoader, search_path

    text = _shown(capsys, "train", "--help")
    config = RunAwareLoader(search_path()).compose("train", [])
    for name in config:
        assert str(name) == "hydra" or f"\n  {name} " in text


def test_keys_carry_their_comment_and_value(capsys):
    text = " ".join(_shown(capsys, "eval", "--help").split())
    assert "batch_size 256 samples per call of the sampler; scores do not depend" in text
    assert "seeds null sample seeds: null = 0 .. num_samples-1, or a range such as" in text
    assert "checkpoint last `last`, a step number" in text


def test_help_follows_what_is_chosen(capsys):
    text = " ".join(_shown(capsys, "train", "sampler=dopri5", "seed=7", "--help").split())
    assert "sampler dopri5" in text
    assert "seed 7 seed of every random number" in text


def test_a_misspelt_choice_beside_help_is_refused(capsys):
    assert main(["train", "sampler=nothing", "--help"]) == 2
    assert "sampler/nothing" in capsys.readouterr().err


def test_help_of_a_verb_by_the_word_help(capsys):
    assert _shown(capsys, "help", "pairs") == _shown(capsys, "pairs", "-h")


@pytest.mark.parametrize("verb", WITH_GROUPS)
def test_the_version_is_ours(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"flowexp {__version__}\n"
