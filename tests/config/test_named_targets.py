"""What ``KEY._target_=CLASS`` on a command line changes, without running a verb."""

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import CSVLogger

from flowexp.config.check import check
from flowexp.config.instantiate import instantiate
from flowexp.config.loader import RunAwareLoader, search_path
from flowexp.config.named_targets import with_additions
from flowexp.config.overrides import parse


def added(*overrides, verb="train"):
    parsed, problems = parse(overrides)
    assert not problems
    lines = [o.input_line for o in with_additions(parsed, config_name=verb)]
    return [line.removeprefix("++") for line in lines if line.startswith("++")]


@pytest.mark.parametrize(
    ("verb", "overrides", "expected"),
    [
        ("train", ["seed=3", "callbacks.a._target_=x.A", "callbacks.a.b.c=1"], [1, 2]),
        ("train", ["callbacks.a.b=1", "callbacks.a._target_=x.A"], [0, 1]),
        ("train", ["callbacks.a.b=1"], []),
        ("train", ["callbacks.ab.c=1", "callbacks.a._target_=x.A"], [1]),
        ("train", ["network._target_=x.A", "network.width=1"], [1]),
        ("train", ["sampler.time_grid._target_=x.A", "sampler.time_grid.k=1"], [1]),
        (
            "train",
            ["sampler._target_=x.A", "sampler.grid._target_=x.B", "sampler.grid.k=1"],
            [1, 2],
        ),
        ("train", ["+callbacks.a._target_=x.A", "callbacks.a.b=1", "~callbacks.progress"], [1]),
        ("train", ["hydra.launcher._target_=x.A", "hydra.launcher.b=1"], []),
        ("eval", ["metric.a._target_=x.A", "callbacks.a._target_=x.A"], [0]),
    ],
)
def test_which_overrides_may_add_a_key(verb, overrides, expected):
    assert added(*overrides, verb=verb) == [overrides[i] for i in expected]


def test_a_lightning_callback_and_logger_are_built_from_the_config(tmp_path):
    checked = check(
        "train",
        [
            "callbacks.lr._target_=pytorch_lightning.callbacks.LearningRateMonitor",
            "callbacks.lr.logging_interval=step",
            "logger.other._target_=pytorch_lightning.loggers.CSVLogger",
            f"logger.other.save_dir={tmp_path}",
        ],
    )
    assert not checked.problems
    assert not checked.remarks
    callbacks = instantiate(checked.config["callbacks"], key="callbacks")
    assert list(callbacks) == ["progress", "sample_grid", "lr"]
    assert isinstance(callbacks["lr"], LearningRateMonitor)
    assert callbacks["lr"].logging_interval == "step"
    assert isinstance(instantiate(checked.config["logger"], key="logger")["other"], CSVLogger)


def test_another_class_keeps_what_it_names_and_what_is_typed():
    checked = check(
        "train",
        ["network._target_=flowexp.networks.DiT", "network.model_channels=8", "network.depth=2"],
    )
    # Typed, so it is checked rather than left out.
    assert [p.key for p in checked.problems] == ["network.model_channels"]
    checked = check("train", ["network._target_=flowexp.networks.DiT", "network.depth=2"])
    assert not checked.problems
    assert set(checked.config["network"]) == {
        "_target_", "img_resolution", "in_channels", "out_channels", "label_dim", "label_dropout",
        "augment_dim", "scalars", "conditions", "depth",
    }  # fmt: skip
    (remark,) = checked.remarks
    assert remark.startswith("network: flowexp.networks.DiT does not take model_channels, ")


def test_the_same_class_loses_nothing():
    checked = check("train", ["network._target_=flowexp.networks.unet.UNet"])
    assert not checked.remarks
    assert checked.config["network"] == check("train", []).config["network"]


def test_a_chosen_part_of_a_replaced_part_is_checked_not_left_out():
    given = ["sampler._target_=flowexp.samplers.DormandPrince", "sampler/time_grid=edm"]
    assert "sampler.time_grid" in {p.key for p in check("train", given).problems}
    assert "time_grid" in check("train", given[:1]).remarks[0]


def test_a_class_that_source_text_does_not_tell_is_imported(tmp_path, monkeypatch):
    text = "class Plain:\n    def __init__(self, lr): ...\nChosen = [Plain][0]\n"
    (tmp_path / "chosen_at_import.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    checked = check("train", ["optimizer._target_=chosen_at_import.Chosen"])
    assert set(checked.config["optimizer"]) == {"_target_", "_partial_", "lr"}
    assert "betas" in checked.remarks[0]


def test_a_partial_stays_one():
    given = ["optimizer._target_=torch.optim.SGD", "optimizer.momentum=0.9"]
    factory = instantiate(check("train", given).config["optimizer"], key="optimizer")
    optimizer = factory([torch.nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.defaults["momentum"] == 0.9


@pytest.mark.parametrize(
    ("overrides", "remark"),
    [
        (
            ["experiment=fashion10k/meanflow", "timestep=uniform"],
            "timestep: Uniform does not take diagonal, law",
        ),
        (
            ["experiment=fashion10k/rectified_flow", "timestep=uniform"],
            "timestep: Uniform does not take mean, std",
        ),
        (
            ["timestep=meanflow", "timestep@timestep.law=lognormal"],
            "timestep.law: LogNormal does not take mean, std",
        ),
        (
            ["objective=alpha_flow", "objective/error_weight=unweighted"],
            "objective.error_weight: Unweighted does not take p, c",
        ),
    ],
)
def test_values_meant_for_another_option_are_left_out(overrides, remark):
    """A recipe, or the option of an outer group, sets them for the part that it chooses."""
    loader = RunAwareLoader(search_path())
    config = loader.compose("train", overrides)
    assert any(text.startswith(remark) for text in loader.remarks), loader.remarks
    key, _, names = remark.partition(": ")
    node = OmegaConf.select(config, key)
    assert not set(names.partition(" take ")[2].split(", ")) & set(node)


def test_a_wrong_key_of_the_command_line_is_kept_beside_a_recipe():
    problems = check(
        "train", ["experiment=fashion10k/rectified_flow", "timestep=uniform", "+timestep.mean=1"]
    ).problems
    assert [p.key for p in problems] == ["timestep.mean"]
