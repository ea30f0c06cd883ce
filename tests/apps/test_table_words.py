"""Which table, claims and rows the words after ``flowexp table`` mean, as a shell hands them on."""

import shlex

import pytest

from flowexp.apps.table_words import as_overrides, chosen_kind, require_matching
from flowexp.config.check import check
from flowexp.errors import UsageError
from flowexp.tables.plan import matching

LABELS = [
    "2-RF, one step",
    "2-RF, two steps",
    "E C with LPIPS-Huber + pairs",
    "D=128, unconditional",
    "DDPM++ cont. (deep, VP)",
    "PFGM (D=1), the authors' run",
]


def config(line: str):
    """What a pasted line means."""
    checked = check("table_run", as_overrides(shlex.split(line)))
    assert checked.problems == [], checked.problems
    return checked.config


@pytest.mark.parametrize(
    ("pasted", "found"),
    [
        ("only=2-RF", LABELS[:2]),
        ("only='2-RF, one step'", LABELS[:1]),
        ('only="2-RF, one step"', LABELS[:1]),
        ("'only=2-RF, one step'", LABELS[:1]),
        ("only=2-RF, one step", LABELS[:1]),
        ("only=2-RF, one step budget=cpu", LABELS[:1]),
        ("\"only='2-RF, one step'\"", LABELS[:1]),
        ("only=D=128, unconditional", LABELS[3:4]),
        ("only=D=128", LABELS[3:4]),
        ("only=lpips-huber + pairs", LABELS[2:3]),
        ("only=DDPM++", LABELS[4:5]),
        ('only="cont. (deep, VP)"', LABELS[4:5]),
        ('only="PFGM (D=1), the authors\' run"', LABELS[5:]),
        ("only=2-RF*steps", LABELS[1:2]),
        ("only=128", LABELS[3:4]),
        ("only=null", LABELS),
    ],
)
def test_only_is_text_as_a_shell_hands_it_on(pasted, found):
    assert matching(config(f"edm/table2 {pasted}")["only"], LABELS) == found


@pytest.mark.parametrize(
    ("line", "kind", "name", "only"),
    [
        ("claims only=rfpp", "claims", None, "rfpp"),
        ("claims rfpp", "claims", None, "rfpp"),
        ("claims only=ot_cfm/straightens", "claims", None, "ot_cfm/straightens"),
        ("claim=ot_cfm/straightens", "claim", "ot_cfm/straightens", None),
        ("claim ot_cfm/straightens", "claim", "ot_cfm/straightens", None),
        ("ot_cfm/straightens", "claim", "ot_cfm/straightens", None),
        ("claim=pfgmpp/robustness only=inf", "claim", "pfgmpp/robustness", "inf"),
        ("pfgmpp/robustness", "table", "pfgmpp/robustness", None),
        ("table=rfpp/table1", "table", "rfpp/table1", None),
    ],
)
def test_a_name_is_that_of_a_table_or_a_claim(line, kind, name, only, capsys):
    found = config(line)
    assert (chosen_kind(found, None), found["name"], found["only"]) == (kind, name, only)
    said = capsys.readouterr().out
    assert ("flowexp table claim=" in said) == (line in ("ot_cfm/straightens", "pfgmpp/robustness"))


def test_overrides_of_a_verb_are_collected():
    found = as_overrides(["rfpp/table1", "train:seed=1", "eval:device=cpu", "train:trainer=gpu"])
    assert found == [
        "name=rfpp/table1",
        "train.overrides=['seed=1','trainer=gpu']",
        "eval.overrides=['device=cpu']",
    ]


def test_what_nothing_is_called_is_answered_with_what_there_is():
    with pytest.raises(UsageError, match="no row matches 'xyz'") as refused:
        require_matching("xyz", LABELS, what="row")
    assert "whose name contains the text" in refused.value.remedy
    assert "e.g. 'only=2-RF, one step'." in refused.value.remedy
    assert "DDPM++ cont. (deep, VP)" in refused.value.remedy
