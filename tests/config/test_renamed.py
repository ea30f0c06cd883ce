"""Parts and arguments that were renamed: stored configs load, and old names are pointed out."""

import json

import pytest

from flowexp.config.check import check
from flowexp.config.instantiate import instantiate
from flowexp.config.renamed import (
    RENAMED,
    RENAMED_ARGUMENTS,
    original,
    present,
    with_present_arguments,
)
from flowexp.config.signatures import signature_of
from flowexp.config.stored import read_stored
from flowexp.config.trust import USER
from flowexp.tables.jobs import significant

OLD = {
    "_target_": "flowexp.parameterizations.FlowMap",
    "of": {"_target_": "flowexp.parameterizations.VelocityPrediction"},
    "jump": {"_target_": "flowexp.parameterizations.EulerJump"},
    "tells": ["gap", "end"],
}
NEW = {("conditions_on" if name == "tells" else name): value for name, value in OLD.items()}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_targets_name_present_classes(old, new):
    assert signature_of(new) is not None
    assert signature_of(old) == signature_of(new)
    assert original(new) == old


@pytest.mark.parametrize("target", RENAMED_ARGUMENTS)
def test_classes_take_the_present_arguments_only(target):
    names = RENAMED_ARGUMENTS[target]
    taken = signature_of(target).parameters.keys()
    assert taken >= set(names.values())
    assert taken.isdisjoint(names)


def test_stored_arguments_are_read_by_their_present_names(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"parameterization": OLD, "several": [dict(OLD, of=1, jump=2)]}))
    assert read_stored(file) == {"parameterization": NEW, "several": [dict(NEW, of=1, jump=2)]}


def test_a_config_with_both_names_keeps_both_so_that_one_is_refused():
    both = {**OLD, **NEW}
    assert with_present_arguments(both) == both


def test_only_the_class_whose_argument_was_renamed_has_another_name():
    node = {"_target_": "my_parts.Other", "tells": 1}
    assert present(node) == node


def test_parts_are_built_of_old_names():
    old = {
        "_target_": "flowexp.objectives.flow_map.GuidedShortest",
        "of": {"_target_": "flowexp.objectives.flow_map.Average", "name": "slow"},
    }
    assert instantiate(old, key="objective.target", by=USER).averages == ("slow",)
    assert instantiate(OLD, key="parameterization", by=USER).conditions_on == ("gap", "end")


def test_the_identity_of_a_job_is_that_of_the_old_names():
    """Results of tables are found by it."""
    new = {"parameterization": NEW, "objective": {"_target_": "flowexp.objectives.flow_map.Itself"}}
    old = {"parameterization": OLD, "objective": present(new["objective"])}
    assert significant(new, verb="train") == significant(old, verb="train")
    assert significant(new, verb="train")["parameterization"] == OLD


def test_an_old_name_on_the_command_line_is_pointed_out():
    flow_map = ["experiment=digits/meanflow"]
    (problem,) = check("train", [*flow_map, "parameterization.tells=[end]"]).problems
    assert problem.key == "parameterization.tells"
    assert problem.remedy == "Did you mean parameterization.conditions_on?"
    (problem,) = check("train", [*flow_map, "+parameterization.tells=[end]"]).problems
    assert problem.remedy == "Did you mean parameterization.conditions_on?"
