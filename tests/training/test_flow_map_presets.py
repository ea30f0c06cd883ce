"""Every preset of flow maps composes, trains and samples in few steps.

Laws, parameterizations and samplers that go with few presets are tried with one of theirs; see
``WITH_FLOW_MAPS`` of the test of all pairs of options.
"""

import math

import pytest
import torch

from flowexp.config.check import check
from flowexp.runs import RunDirectory
from flowexp.runs.assemble import build
from flowexp.samplers import FlowMapSampler
from flowexp.training import fit, training_parts
from tests.config.test_conf_files import OBJECTIVES
from tests.e2e.option_pairs import FLOW_MAPS, WITH_FLOW_MAPS, known_of

TINY = (
    "dataset=digits",
    "network.model_channels=8",
    "network.channel_mult=[1]",
    "network.pixel_unshuffle=1",
    "metric=none",
    "callbacks=none",
    "logger=none",
    "trainer.accelerator=cpu",
    "trainer.batch_size=8",
    "trainer.max_kimg=0.016",
)
# the default distance needs a file that is not here
PERCEPTUAL = [
    "objective/perceptual@objective.regressed.perceptual=efficientnet",
    "objective.regressed.perceptual.resize=32",
]
# what the preset is tried with, instead of its companions or besides
BESIDE = {
    "alpha_flow": ["timestep=start_and_below"],
    "alpha_flow_guided": ["timestep=capped", "objective/leg/schedule=linear"],
    "consistency_distillation": PERCEPTUAL,
    "consistency_training": PERCEPTUAL,
    "ect": ["timestep=shrinking_ratio", "path=edm", "sampler=consistency"],
    "esd": ["objective/leg/derivative=difference"],
    "ict": ["timestep=ict"],
    "imm": ["path=imm"],
    "improved_meanflow": ["guidance=embedded"],
    "lsd": ["timestep=to_data"],
    "meanflow": ["timestep=meanflow_v1"],
    "psd_m": ["objective/driver/target=average"],
    "psd_u": ["timestep=meanflow"],
    "scd": ["objective/leg/limit=clipped"],
    "soflow": ["timestep=soflow"],
    "tcm": ["timestep=tcm"],
    "tcm_stage2": ["timestep=tcm_stage2"],
}
# as options that are tried, with other numbers
NUMBERS = {"timestep/ect_imagenet64", "timestep/tcm_imagenet64"}
# what their teachers are: a flow on the same path, or the first stage
TEACHERS = {
    "consistency_distillation": (),
    "scd": ("path=edm", "parameterization=trigflow"),
    "split_mean_flow_teacher": (),
    "tcm_stage2": ("objective=tcm", *OBJECTIVES["tcm"]),
}


def train(folder, *overrides):
    """Two steps, as ``flowexp train``; the built parts and the result."""
    checked = check("train", [*TINY, *overrides])
    assert [str(p) for p in checked.problems] == []
    config = checked.config
    torch.manual_seed(0)
    built = build(config)
    run = RunDirectory.start(folder, config=config)
    return built, fit(training_parts(config, built), run=run, seed=0, config=config)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Folder of the trained model for some choices; each is trained once."""
    folders = {}

    def of(choices):
        if choices not in folders:
            folders[choices] = tmp_path_factory.mktemp("teacher")
            train(folders[choices], *choices)
        return folders[choices]

    return of


def overrides_of(preset):
    """The preset with its companions and what it is tried with; of a group the last choice."""
    chosen = {}
    for override in [*OBJECTIVES[preset], *BESIDE.get(preset, ())]:
        chosen[override.partition("=")[0]] = override
    return [f"objective={preset}", *chosen.values()]


@pytest.mark.parametrize("preset", FLOW_MAPS)
def test_a_preset_trains_two_steps_and_samples_in_one_and_two(preset, tmp_path, teachers):
    chosen = [o for o in overrides_of(preset) if not o.startswith("teacher=")]
    if preset in TEACHERS:
        chosen.append(f"teacher={teachers(TEACHERS[preset])}")
    built, result = train(tmp_path, *chosen)
    assert result.step == 2
    assert math.isfinite(result.final_loss)
    model = built.model
    own = built.pipeline.sampler
    noise = "restart" if model.maps_to_data_only else None
    jumps = [FlowMapSampler(steps=1), FlowMapSampler(steps=2, noise=noise)]
    for sampler in [*jumps, *([own] if own.jumps else [])]:
        x = built.pipeline.replace(sampler=sampler).sample(seeds=[0, 1])
        assert x.shape == (2, *built.dataset.shape)
        assert torch.isfinite(x).all()


@pytest.mark.parametrize("preset", FLOW_MAPS)
def test_a_preset_refuses_a_model_of_one_time(preset):
    found = known_of(("objective", preset), ("parameterization", "velocity"))[1]
    said = [p for p in found if p.key == "parameterization"]
    assert len(said) == 1
    assert str(said[0]).count("VelocityPrediction has no second time.") == 1


def test_options_that_go_with_few_presets_are_tried():
    tried = {
        f"{override.partition('=')[0]}/{override.partition('=')[2]}"
        for preset in FLOW_MAPS
        for override in overrides_of(preset)
    }
    assert WITH_FLOW_MAPS - tried == NUMBERS
