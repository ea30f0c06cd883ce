"""Where the values of a config come from."""

import yaml

from flowexp.config.check import check
from flowexp.config.origins import annotated, origins_of, overruled

GIVEN = ["experiment=cifar10/edm_cond_vp", "sampler=dpmpp_2m", "trainer.batch_size=64"]


def test_values_of_a_recipe_and_of_the_command_are_known():
    found = origins_of("train", GIVEN)
    assert found["sampler.steps"] == "experiment=cifar10/edm_cond_vp"
    assert found["trainer.batch_size"] == "command line"
    assert "sampler.order" not in found
    assert "seed" not in found
    assert "sampler.time_grid._target_" not in found


def test_a_recipe_that_overrides_the_chosen_option_is_named_by_a_check():
    (said,) = overruled("train", GIVEN)
    assert said == (
        "experiment=cifar10/edm_cond_vp sets sampler.steps=18 over the 10 of sampler=dpmpp_2m; "
        "add sampler.steps=10 to keep that."
    )
    assert said in check("train", GIVEN).remarks
    assert list(overruled("train", [*GIVEN, "sampler.steps=10"])) == []
    assert list(overruled("train", GIVEN[1:])) == []


def test_comments_leave_the_values_as_they_are():
    config = {
        "a": {"b": 1.5, "c": None, "text": "x: # y", "list": [1, {"d": 2}], "none": []},
        "e": {"long": "word " * 60, "lines": "one\ntwo\n"},
    }
    text = yaml.safe_dump(config, sort_keys=False)
    keys = ("a.b", "a.c", "a.text", "a.list", "a.none", "e.long", "e.lines")
    shown = annotated(text, dict.fromkeys(keys, "experiment=x"))
    assert yaml.safe_load(shown) == config
    assert shown.count("# experiment=x") == len(keys)
    assert "b: 1.5  # experiment=x" in shown
    block = "a: |\n  one\n  two\nb: 1\n"
    assert annotated(block, {"a": "experiment=x"}) == block  # it would be part of the text
    inner = annotated("b: 1.5\n", {"a.b": "command line"}, package="a")
    assert inner == "b: 1.5  # command line\n"
