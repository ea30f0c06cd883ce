"""Recipes of rectified flow and RF++: networks of the published sizes, what differs, tables."""

from functools import cache

import pytest

from flowexp.config.check import check, check_job
from flowexp.config.instantiate import instantiate
from flowexp.tables.table_files import names, read_table

PARAMETERS = {
    "cifar10/rectified_flow": 61_804_419,
    "cifar10/reflow": 61_804_419,
    "cifar10/reflow_distill": 61_804_419,
    "cifar10/rfpp_a": 61_804_419,
    "cifar10/rfpp_b": 56_397_827,
    "cifar10/rfpp_f": 56_397_827,
    "cifar10/rfpp_g": 56_397_827,
    "afhqv2_64/rfpp": 62_761_091,
    "ffhq64/rfpp": 62_761_091,
    "imagenet64/rfpp": 295_899_267,
}
# law of t, premetric, whether with LPIPS, whether that is divided by t
CONFIGURATIONS = {
    "b": ("Uniform", "SquaredL2", False, False),
    "c": ("UShaped", "SquaredL2", False, False),
    "d": ("UShaped", "PseudoHuber", False, False),
    "e": ("UShaped", "PseudoHuber", True, False),
    "f": ("UShaped", "PseudoHuber", True, True),
    "g": ("UShaped", "PseudoHuber", True, True),
}
TABLES = [name for name in names("table") if name.startswith(("rfpp/", "rectified_flow/"))]


@cache
def composed(name, *overrides):
    reflows = ("reflow" in name) or ("rfpp" in name)
    starts = [] if name == "cifar10/rectified_flow" else ["init=somewhere"]
    pairs = ["pairs=somewhere"] if reflows else []
    checked = check_job("train", [f"experiment={name}", *pairs, *starts, *overrides])
    assert [str(problem) for problem in checked.problems] == []
    return checked.config


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_have_the_published_sizes(name):
    import torch

    config = composed(name)
    with torch.device("meta"):
        network = instantiate(config["network"], key="network")
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]
    augmentation = instantiate(config["augmentation"], key="augmentation")
    assert augmentation.augment_dim == config["network"]["augment_dim"]
    assert not augmentation.changes_images


@pytest.mark.parametrize("letter", CONFIGURATIONS)
def test_configurations_of_rfpp_differ_in_law_and_loss_alone(letter):
    config = composed(f"cifar10/rfpp_{letter}")
    objective = config["objective"]
    last = {key: str(config[key]["_target_"]).rpartition(".")[2] for key in ("timestep", "path")}
    found = (
        last["timestep"],
        objective["premetric"]["_target_"].rpartition(".")[2],
        "perceptual" in objective,
        bool(objective.get("inverse_time")),
    )
    assert found == CONFIGURATIONS[letter]
    assert objective["target"] == "velocity"
    for key in ("network", "parameterization", "sampler", "optimizer", "ema", "coupling"):
        assert config[key] == composed("cifar10/rfpp_b")[key]


def test_rfpp_calls_the_network_as_often_as_its_table_6_says():
    pairs = dict(o.split("=") for o in read_table("rfpp/imagenet64").jobs["pairs"].overrides)
    of_pairs = int(pairs["num"]) * (2 * int(pairs["sampler.steps"]) - 1) / 1e6
    of_training = composed("imagenet64/rfpp")["trainer"]["max_kimg"] / 1e3
    assert (of_pairs, round(of_training + of_pairs, 1)) == (395, 1828.6)


def test_reflow_keeps_the_network_and_the_pairs_as_they_are():
    first, second = composed("cifar10/rectified_flow"), composed("cifar10/reflow")
    for key in ("parameterization", "path", "objective", "timestep", "optimizer"):
        assert first[key] == second[key]
    assert second["network"] == {**first["network"], "dropout": 0.1}
    assert first["dataset"]["hflip"] is True
    assert second["dataset"]["hflip"] is False


def test_laws_that_draw_the_end_refuse_parts_that_are_not_defined_there():
    told = ["timestep=fixed", "parameterization=edm", "objective=flow_matching"]
    problems = [str(p) for p in check("train", told).problems]
    assert len(problems) == 1
    assert "pure noise" in problems[0]
    assert "timestep.value=0.99999" in problems[0]
    for mended in (["timestep.value=0.99999"], ["path=vp"], ["parameterization=velocity"]):
        assert check("train", [*told, *mended]).problems == []


def test_a_perceptual_loss_of_points_is_refused():
    points = ["dataset=moons", "network=mlp", "metric=fd_raw"]
    problems = [str(p) for p in check("train", [*points, "objective=lpips_huber"]).problems]
    assert len(problems) == 1
    assert "LPIPS compares images" in problems[0]


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_the_tables_is_a_sound_training(name):
    table = read_table(name)
    for row in table.rows:
        assert None not in (row.published, row.nfe, row.source)
        assert row.training in table.jobs
    for job in table.jobs.values():
        assert set(job.needs) <= set(table.jobs)
        if job.verb == "train":
            composed(job.experiment, *job.overrides)
