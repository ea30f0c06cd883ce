"""SlimFlow, Rectified Diffusion, InstaFlow: networks of the published sizes, variants, tables."""

from functools import cache

import pytest

from flowexp.config.check import check_job
from flowexp.config.instantiate import instantiate
from flowexp.tables.table_files import names, read_table

PARAMETERS = {
    "cifar10/slimflow_28m": 27_906_179,
    "cifar10/slimflow_15m": 15_707_235,
    "cifar10/slimflow_7m": 6_989_891,
    "cifar10/slimflow_3m": 3_437_123,
    "ffhq64/slimflow_28m": 27_906_179,
    "ffhq64/slimflow_15m": 15_707_235,
    "imagenet64/slimflow_81m": 80_685_315,
    "imagenet64/slimflow_45m": 44_685_827,
}
NETWORKS = {
    **PARAMETERS,
    **{f"{name}_distill": count for name, count in PARAMETERS.items()},
    "cifar10/rectified_flow": 61_804_419,
}
TABLES = [name for name in names("table") if name.startswith("slimflow/")]


@cache
def composed(name, *overrides):
    given = [key for key in ("pairs", "teacher", "init") if needs(name, key)]
    return sound(name, given, overrides)


def sound(name, given, overrides):
    runs = [f"{key}=somewhere" for key in given]
    checked = check_job("train", [f"experiment={name}", *runs, *overrides])
    assert [str(problem) for problem in checked.problems] == []
    return checked.config


def needs(name, key):
    recipe = name.partition("/")[2]
    if key == "pairs":
        return recipe.startswith(("slimflow", "reflow"))
    distilled = recipe.startswith("slimflow") and recipe.endswith("distill")
    return distilled or (key == "init" and recipe.startswith("reflow"))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_the_published_sizes(name):
    import torch

    with torch.device("meta"):
        network = instantiate(composed(name)["network"], key="network")
    assert sum(p.numel() for p in network.parameters()) == NETWORKS[name]


def test_mirrored_pictures_are_the_teachers_symmetry():
    assert composed("cifar10/slimflow_15m")["dataset"]["hflip"] is True


def test_the_papers_and_the_codes_variant_are_options():
    two = {}
    for name in ("flow_guided", "flow_guided_paper"):
        checked = check_job("train", [f"objective={name}", "path=linear", "teacher=somewhere"])
        assert checked.problems == []
        objective = checked.config["objective"]
        two[name] = (objective["student_first"], objective["low"], objective["high"])
    assert two == {"flow_guided": (True, 0.2, 0.8), "flow_guided_paper": (False, 0.0, 1.0)}


def test_a_teacher_is_asked_for():
    checked = check_job(
        "train", ["experiment=fashion10k/slimflow_distill_guided", "pairs=x", "init=y"]
    )
    assert [problem.key for problem in checked.problems] == ["teacher"]


def test_rectified_diffusion_changes_nothing_but_the_pairs():
    first = check_job("train", ["experiment=cifar10/diffusion_vp"]).config
    second = check_job(
        "train", ["experiment=cifar10/rectified_diffusion_vp", "pairs=x", "init=y"]
    ).config
    for key in ("network", "parameterization", "path", "objective", "timestep", "optimizer"):
        assert first[key] == second[key]
    assert second["objective"]["target"] == "noise"
    assert second["path"]["schedule"]["_target_"].endswith(".VP")
    assert second["coupling"]["_target_"].endswith("StoredPairs")


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_the_tables_is_a_sound_training(name):
    table = read_table(name)
    for row in table.rows:
        assert None not in (row.published, row.source)
        assert table.jobs[row.training].verb == "train"
    for job in table.jobs.values():
        assert set(job.needs) <= set(table.jobs)
        if job.verb == "train":
            sound(job.experiment, job.parents, job.overrides)
