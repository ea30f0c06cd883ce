"""EDM's recipes: networks of the published sizes, mirrored once, the rows of table 2."""

import json
from functools import cache
from pathlib import Path

import pytest

from flowexp.config.check import check_job
from flowexp.config.instantiate import instantiate
from flowexp.tables.table_files import read_table

SHAPES = Path(__file__).parents[1] / "goldens" / "data" / "edm" / "statedict_shapes.json"
PUBLISHED = {
    "cifar10/edm": "cifar10-32x32-cond-vp",
    "cifar10/edm_cond_vp": "cifar10-32x32-cond-vp",
    "cifar10/edm_cond_ve": "cifar10-32x32-cond-ve",
    "cifar10/edm_uncond_vp": "cifar10-32x32-uncond-vp",
    "cifar10/edm_uncond_ve": "cifar10-32x32-uncond-ve",
    "ffhq64/edm_vp": "ffhq-64x64-uncond-vp",
    "ffhq64/edm_ve": "ffhq-64x64-uncond-ve",
    "afhqv2_64/edm_vp": "ffhq-64x64-uncond-vp",
    "afhqv2_64/edm_ve": "ffhq-64x64-uncond-ve",
    "imagenet64/edm_adm": "imagenet-64x64-cond-adm",
}
BASELINES = [
    f"{dataset}/edm_baseline_{kind}"
    for dataset in ("cifar10", "ffhq64", "afhqv2_64")
    for kind in ("vp", "ve")
]


@cache
def composed(name, *overrides):
    checked = check_job("train", [f"experiment={name}", *overrides])
    assert [str(problem) for problem in checked.problems] == []
    return checked.config


@pytest.mark.parametrize("name", [*PUBLISHED, *BASELINES])
def test_augmentation_and_network_agree_and_pictures_are_mirrored_once(name):
    config = composed(name)
    augmentation = instantiate(config["augmentation"], key="augmentation")
    assert augmentation.augment_dim == config["network"]["augment_dim"]
    assert (augmentation.augment_dim == 9) == (name not in BASELINES and "imagenet" not in name)
    assert config["dataset"]["hflip"] == (name in BASELINES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_have_the_published_sizes(name):
    import torch

    with torch.device("meta"):
        network = instantiate(composed(name)["network"], key="network")
    published = json.loads(SHAPES.read_text())[PUBLISHED[name]]
    assert sum(p.numel() for p in network.parameters()) == published["num_params"]


def test_every_row_of_table_2_is_a_sound_training():
    table = read_table("edm/table2")
    assert len({row.label for row in table.rows}) == len(table.rows) == 48
    for row in table.rows:
        assert row.published is not None
        assert (row.source or "").startswith("Table 2, ")
        assert row.eval == ()
        job = table.jobs[row.training]
        assert (job.parents, job.after) == ({}, ())
        config = composed(job.experiment, *job.overrides)
        assert 2 * config["sampler"]["steps"] - 1 == row.nfe
        # appendix C.2: VE ends at 0.02 in training and sampling, until E
        lowest = 0.02 if "VE" in row.label and row.label[0] in "ABCD" else 0.002
        assert config["sampler"]["time_grid"]["sigma_min"] == lowest
        assert row.verified
