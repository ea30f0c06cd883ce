"""The config groups path, parameterization, timestep, coupling and objective build what they name.

Hydra composes each group file as a user would select it.
"""

import math
from pathlib import Path as File

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from flowexp.couplings import Coupling
from flowexp.objectives import Objective, PseudoHuber, Regression
from flowexp.objectives.weightings import MinSNR
from flowexp.parameterizations import Parameterization
from flowexp.paths import Path, StudentT
from flowexp.timesteps import LogitNormal, Stratified, TimeLaw
from tests.refusals import refusal_of

CONF = File(__file__).parents[2] / "conf"
KINDS = {
    "path": Path,
    "parameterization": Parameterization,
    "timestep": TimeLaw,
    "coupling": Coupling,
    "objective": Objective,
}
# What asks a finished run has tests of its own.
NEEDS_A_RUN = {"chords", "consistency_distillation", "flow_guided", "flow_guided_paper", "phased",
               "scd", "slimflow", "slimflow_lpips", "split_mean_flow_teacher", "tcm_stage2",
               "velocity_refinement"}  # fmt: skip
FILES = [
    (group, f.stem)
    for group in KINDS
    for f in sorted((CONF / group).glob("*.yaml"))
    if f.stem not in NEEDS_A_RUN
]
NESTED = [
    (part, f.stem)
    for part in ("weighting", "premetric")
    for f in sorted((CONF / "objective" / part).glob("*.yaml"))
]


def build(group, option, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(f"{group}/{option}", overrides=list(overrides))
        others = {
            "path": compose("path/linear").path,
            "network": {"sequence": 5},
            "autoencoder": {"channels": 3, "resolution": 32},
            "objective": {"noise": {"scale": 1.0}},
            "dirs": {"root": "outputs"},
            "trainer": {"max_kimg": 100},
        }
        config = OmegaConf.merge({k: v for k, v in others.items() if k != group}, config)
    return instantiate(config[group])


@pytest.mark.parametrize(("group", "option"), FILES)
def test_every_option_builds_its_kind_and_says_what_it_is(group, option):
    assert isinstance(build(group, option), KINDS[group])
    first = (CONF / group / f"{option}.yaml").read_text().splitlines()[0]
    assert first.startswith("# ")


@pytest.mark.parametrize("option", [o for g, o in FILES if g == "path"])
def test_every_path_takes_degrees_of_freedom(option):
    path = build("path", option, "path.D=128")
    assert path.D == 128.0
    assert isinstance(path.source, StudentT)
    assert build("path", option, "path.D=inf").D == math.inf


def test_named_paths_have_their_published_source():
    assert build("path", "pfgmpp").D == 2048.0
    assert build("path", "pfgm").D == 1.0
    assert build("path", "edm").D == math.inf


@pytest.mark.parametrize(("part", "option"), NESTED)
@pytest.mark.parametrize("objective", ["denoising", "flow_matching", "noise"])
def test_every_weighting_and_premetric_can_be_chosen(part, option, objective):
    chosen = build("objective", objective, f"objective/{part}={option}")
    assert isinstance(chosen, Regression)
    named = OmegaConf.load(CONF / "objective" / part / f"{option}.yaml")._target_
    assert type(getattr(chosen, part)).__name__ == named.rsplit(".", 1)[1]


def test_nested_choices_keep_their_arguments():
    objective = build(
        "objective",
        "denoising",
        "objective/weighting=min_snr",
        "objective.weighting.gamma=3",
        "objective/premetric=pseudo_huber",
        "objective.premetric.c=0.5",
    )
    assert isinstance(objective.weighting, MinSNR)
    assert objective.weighting.gamma == 3.0
    assert isinstance(objective.premetric, PseudoHuber)
    assert objective.premetric.c == 0.5


def test_stratified_takes_any_law():
    law = build("timestep", "stratified", "timestep@timestep.law=logit_normal")
    assert isinstance(law, Stratified)
    assert isinstance(law.law, LogitNormal)


@pytest.mark.parametrize("option", [o for g, o in FILES if g == "timestep"])
def test_every_law_suits_the_default_path(option):
    assert refusal_of(build("timestep", option), path=build("path", "linear")) is None


def test_uniform_follows_the_path():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.merge({"path": compose("path/edm").path}, compose("timestep/uniform"))
    assert instantiate(config.timestep).support == (0.002, 80.0)
