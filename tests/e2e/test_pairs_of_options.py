"""Swapping any one choice trains and samples: all pairs of options of all groups, on tiny sizes.

A covering set of rows is built greedily: every pair of options that makes sense together appears in
at least one row, and each row is composed, checked, trained for one step and sampled. Pairs that
make no sense are listed here with the reason, and must be refused with it.
"""

import itertools
import math
import random
from importlib.util import find_spec

import pytest
import torch

from flowexp.apps.list import options
from flowexp.config.check import check_job
from flowexp.data import gather_batch
from flowexp.runs.assemble import build
from flowexp.seeding import SampleNoise, generator
from flowexp.training import training_parts
from flowexp.training.draws import Draws

# Data that the repository or its packages carry; other data sets share their reader's code.
DATASETS = ["toy2d", "moons", "checkerboard", "digits", "fashion10k"]
POINTS = {"toy2d", "moons", "checkerboard"}
UNIT_TIME_LAWS = {"logit_normal", "mode", "cosmap", "beta", "u_shaped"}
# laws that draw the source end itself, and what is not defined there on the linear path
LAWS_WITH_END = {"fixed", "uniform_grid"}
NEEDS_SIGNAL = {"edm", "noise", "vp_precond", "ve_precond", "iddpm_precond", "poisson_field"}
INFINITE_AT_END = {"velocity_of_noise", "likelihood_of_noise"}
PERCEPTUAL = {"lpips", "lpips_huber", "lpips_huber_divt"}
# they step in sigma/alpha, which is infinite at the end of paths that reach pure noise
IN_NOISE_TO_SIGNAL = {"dpm2", "edm_heun"}
# the default distance needs a file that is not here
OFFLINE = ["objective/perceptual=efficientnet", "objective.perceptual.resize=32"]
PATHS = {name: check_job("train", [f"path={name}"]).config["path"] for name in options("path")}
VE_PATHS = {name for name, path in PATHS.items() if path["schedule"]["t_max"] > 1}
T_SOURCES = {name for name, path in PATHS.items() if math.isfinite(path["D"] or math.inf)}
BRIDGES = {"bridge_matching", "smoothed_flow_matching"}
SDES = {"sde", "sde_heun"}
# an SDE's last step begins above 0, and these grids end at 0
GRIDS_TO_ZERO = {"edm", "vp", "iddpm", "log_snr", "half_log_snr", "given"}

TINY = {
    "network=unet": ["network.model_channels=8", "network.pixel_unshuffle=1"],
    "network=ddpmpp": [
        "network.model_channels=8",
        "network.num_blocks=1",
        "network.channel_mult=[1,2]",
    ],
    "network=ncsnpp": [
        "network.model_channels=8",
        "network.num_blocks=1",
        "network.channel_mult=[1,2]",
    ],
    "network=adm": [
        "network.model_channels=8",
        "network.num_blocks=1",
        "network.channel_mult=[1,2]",
    ],
    "network=dit": ["network.hidden_size=16", "network.depth=1", "network.num_heads=2"],
    "network=lora": ["network.network.model_channels=8", "network.network.pixel_unshuffle=1"],
    "network=mlp": ["network.hidden=16", "network.depth=1"],
    "network=diffusers_unet": [
        "network.block_out_channels=[32]",
        "network.layers_per_block=1",
        "network.down_block_types=[DownBlock2D]",
        "network.up_block_types=[UpBlock2D]",
    ],
    "sampler/time_grid=given": ["sampler.time_grid.values=[0.8,0.4,0.0]"],
    **{f"objective={name}": OFFLINE for name in PERCEPTUAL},
}
# What asks a finished run (a teacher, stored pairs, a calibration) has tests of its own.
NEEDS_A_RUN = {
    "bellman",
    "boss",
    "chords",
    "flow_guided",
    "flow_guided_paper",
    "phased",
    "slimflow",
    "slimflow_lpips",
    "dpm_solver_v3",
    "dpm_solver_v3_5",
    "dpm_solver_v3_guided",
    "dpm_solver_v3_latent",
    "annealed_pairs",
    "pairs",
    "velocity_increment",
    "velocity_refinement",
}


# What is of use with an option of one of the groups that are not swapped here alone.
NEEDS_A_PARTNER = {"captioned"}
# What is of use with a package that is not a requirement, where it is not installed.
ABSENT = set() if find_spec("diffusers") else {"diffusers_unet"}


# Differ from another option in numbers only (an order, a tableau), which stands for them in pairs.
STANDS_FOR = {
    "dpmpp_1s": "dpmpp_2m",
    "dpmpp_3m": "dpmpp_2m",
    "dpmpp_3m_taylor": "dpmpp_2m",
    "ralston": "midpoint",
    "heun3": "rk4",
    "rk4_38": "rk4",
}


def free(group: str) -> list[str]:
    """The options of a group that need no finished run and no one option of another group."""
    left_out = NEEDS_A_RUN | NEEDS_A_PARTNER | ABSENT | set(STANDS_FOR)
    return [name for name in options(group) if name not in left_out]


GROUPS = {
    "dataset": DATASETS,
    "path": options("path"),
    "coupling": free("coupling"),
    "timestep": free("timestep"),
    "network": free("network"),
    "parameterization": free("parameterization"),
    "objective": free("objective"),
    "objective/weighting": options("objective/weighting"),
    "objective/premetric": options("objective/premetric"),
    "sampler": free("sampler"),
    "sampler/time_grid": free("sampler/time_grid"),
    "guidance": options("guidance"),
    "optimizer": options("optimizer"),
}


def refused(a: tuple[str, str], b: tuple[str, str]) -> str | None:
    """The word that the refusal of a senseless pair must hold, or None for a sensible pair."""
    pair = dict([a, b])
    dataset, network = pair.get("dataset"), pair.get("network")
    if dataset and network and (dataset in POINTS) != (network == "mlp"):
        return "dataset"
    if pair.get("timestep") in UNIT_TIME_LAWS and pair.get("path") in VE_PATHS:
        return "timestep"
    if pair.get("timestep") in LAWS_WITH_END and (
        pair.get("parameterization") in NEEDS_SIGNAL
        or pair.get("objective/weighting") in INFINITE_AT_END
        or pair.get("objective") == "stable_denoising"
    ):
        return "timestep"
    if pair.get("objective") in PERCEPTUAL and dataset in POINTS:
        return "objective"
    if pair.get("objective") in PERCEPTUAL and network == "mlp":
        # mlp is for points, which have no pictures to compare
        return "dataset"
    if pair.get("objective") in BRIDGES and pair.get("path") in VE_PATHS:
        return "objective"
    if pair.get("sampler") in SDES and pair.get("path") in T_SOURCES:
        return "sampler"
    if pair.get("sampler") in SDES and pair.get("sampler/time_grid") in GRIDS_TO_ZERO:
        return "sampler.time_grid"
    return None


def everything() -> list[tuple[str, str]]:
    return [(group, value) for group, values in GROUPS.items() for value in values]


def sensible_pairs() -> set[frozenset[tuple[str, str]]]:
    found = itertools.combinations(everything(), 2)
    return {frozenset(p) for p in found if p[0][0] != p[1][0] and refused(*p) is None}


def covering_rows() -> list[dict[str, str]]:
    rng = random.Random(0)
    missing = sensible_pairs()
    rows = []
    while missing:
        row = dict(min(missing, key=sorted))
        for group in rng.sample(sorted(GROUPS), len(GROUPS)):
            if group not in row:
                row[group] = max(
                    (
                        v
                        for v in GROUPS[group]
                        if not any(refused((group, v), o) for o in row.items())
                    ),
                    key=lambda v: (
                        sum(frozenset([(group, v), o]) in missing for o in row.items()),
                        rng.random(),
                    ),
                )
        missing -= {frozenset(p) for p in itertools.combinations(row.items(), 2)}
        rows.append(row)
    return rows


ROWS = covering_rows()


def overrides_of(row: dict[str, str]) -> list[str]:
    chosen = [f"{group}={value}" for group, value in row.items()]
    extra = [o for choice in chosen for o in TINY.get(choice, [])]
    if row["sampler"] in SAMPLERS_WITHOUT_GRID:
        chosen = [c for c in chosen if not c.startswith("sampler/time_grid=")]
        extra = [o for o in extra if not o.startswith("sampler.time_grid")]
    else:
        extra.append(STEPS.get(row["sampler"], "sampler.steps=2"))
    if row["sampler"] in IN_NOISE_TO_SIGNAL and PATHS[row["path"]]["schedule"]["t_max"] == 1:
        extra.append("path.schedule.t_max=0.99")
    metric = "fd_raw" if row["dataset"] in POINTS else "none"
    return [*chosen, *extra, f"metric={metric}"]


SAMPLERS_WITHOUT_GRID = {"dopri5", "dopri5_log"}
# how two steps are asked for
STEPS = {"flowturbo": "sampler.blocks=H1P1"}


# each of the options that another stands for, in the first row of that other
BY_NAME = [
    {**next(row for row in ROWS if row["sampler"] == other), "sampler": name}
    for name, other in STANDS_FOR.items()
]


@pytest.mark.parametrize(
    "row", [*ROWS, *BY_NAME], ids=[*map(str, range(len(ROWS))), *(r["sampler"] for r in BY_NAME)]
)
def test_trains_and_samples(row):
    checked = check_job("train", overrides_of(row))
    assert [str(p) for p in checked.problems] == []
    config = checked.config
    torch.manual_seed(0)
    parts = build(config)
    loss = one_step(config, parts)
    assert math.isfinite(loss)
    x = two_samples(parts)
    assert x.shape == (2, *parts.dataset.shape)
    assert torch.isfinite(x).all()


def one_step(config, parts) -> float:
    training = training_parts(config, parts)
    optimizer = training.optimizer(parts.network.parameters())
    draws = Draws(
        parts.model.path,
        coupling=training.coupling,
        timestep=training.timestep,
        augmentation=training.augmentation,
        conditional=parts.network.label_dim > 0,
        seed=0,
    )
    pairs, t = draws(gather_batch(parts.dataset.train(), torch.arange(4).numpy()), 0)
    rng = generator(0, "objective", 0)
    loss = training.objective.loss(parts.model, pairs, t, rng=rng).per_sample
    assert loss.shape == (4,)
    loss.mean().backward()
    grads = [p.grad for p in parts.network.parameters() if p.grad is not None]
    assert grads
    assert all(torch.isfinite(g).all() for g in grads)
    optimizer.step()
    return float(loss.detach().mean())


def two_samples(parts) -> torch.Tensor:
    parts.network.eval()
    e = parts.model.path.source.sample((2, *parts.dataset.shape), rng=generator(0, "latents", 0))
    pipeline = parts.pipeline
    conditions = pipeline.task.conditions([0, 1], device="cpu")
    found = pipeline.sampler.sample(pipeline.model, e, noise=SampleNoise([0, 1]), **conditions)
    return found.x


def senseless_pairs():
    found = [
        (a, b, refused(a, b))
        for a, b in itertools.combinations(everything(), 2)
        if a[0] != b[0] and refused(a, b)
    ]
    return [pytest.param(*p, id=f"{p[0][1]}-{p[1][1]}") for p in found]


@pytest.mark.parametrize(("a", "b", "word"), senseless_pairs())
def test_what_makes_no_sense_is_refused_with_its_reason(a, b, word):
    dataset = [] if "dataset" in (a[0], b[0]) else ["dataset=digits"]
    choices = sorted([f"{a[0]}={a[1]}", f"{b[0]}={b[1]}"], key=lambda choice: choice.count("/"))
    given = TINY["sampler/time_grid=given"] if "given" in (a[1], b[1]) else []
    problems = check_job("train", [*dataset, *choices, *given]).problems
    assert problems
    assert any(word in f"{p}" for p in problems)


def test_the_rows_cover_every_sensible_pair():
    covered = {frozenset(p) for row in ROWS for p in itertools.combinations(row.items(), 2)}
    assert sensible_pairs() <= covered
