"""Recipes of torchcfm, flow_matching, score-SDE and DDPM: sizes, what networks see, times."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from flowexp.config.check import check_job
from flowexp.config.instantiate import instantiate
from flowexp.models import FlowModel

F64 = torch.float64
GOLDENS = Path(__file__).parents[1] / "goldens" / "data" / "flow-matching"
PARAMETERS = {
    "icfm": 35_746_307,
    "ddpm": 35_746_307,
    "flow_matching": 55_676_419,
    "score_sde_vp": 61_804_419,
    "score_sde_vp_deep": 106_632_579,
    "score_sde_ve": 62_758_787,
    "score_sde_ve_deep": 107_586_947,
}


@cache
def composed(name, *overrides):
    checked = check_job("train", [f"experiment=cifar10/{name}", *overrides])
    assert [str(problem) for problem in checked.problems] == []
    return checked.config


def built(config, *groups):
    return [instantiate(config[group], key=group) for group in groups]


def seen(config, t):
    """The time input of the network at times t."""
    path, parameterization = built(config, "path", "parameterization")
    c = path.schedule.coefficients(t)
    return parameterization.inputs(path.schedule, t, c)


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_have_the_published_sizes(name):
    with torch.device("meta"):
        (network,) = built(composed(name), "network")
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "base", "group"),
    [
        ("fm", "icfm", None),
        ("ot_cfm", "icfm", "coupling"),
        ("si", "icfm", "path"),
        ("diffusion_vp", "score_sde_vp", None),
        ("score_sde_sub_vp", "score_sde_vp", "path"),
        ("score_sde_sub_vp_deep", "score_sde_vp_deep", "path"),
    ],
)
def test_variants_differ_in_one_group(name, base, group):
    first, second = composed(base), composed(name)
    changed = {key for key in first if key != "dirs" and first[key] != second[key]}
    assert changed == ({group} if group else set())


@pytest.mark.parametrize("name", ["icfm", "si", "flow_matching"])
def test_flows_count_time_from_the_noise_as_their_authors_do(name):
    t = torch.linspace(0.01, 0.99, 7, dtype=F64)
    inputs = seen(composed(name), t)
    torch.testing.assert_close(inputs.c_noise, 1.0 - t)
    assert torch.equal(inputs.c_in, torch.ones_like(t))


@pytest.mark.parametrize("name", ["icfm", "si"])
def test_the_targets_are_torchcfms(name):
    """Golden values of its ConditionalFlowMatcher and VariancePreservingConditionalFlowMatcher."""
    golden = np.load(GOLDENS / "cfm_paths.npz")
    of = {"icfm": "icfm", "si": "vp"}[name]
    e, x, t = (torch.from_numpy(golden[key]) for key in ("e", "x", "t_flowexp"))
    (path,) = built(composed(name), "path")
    point = path.point(x, e, t)
    theirs = torch.from_numpy(golden[f"{of}_ut_ref"])
    torch.testing.assert_close(-point.velocity, theirs, rtol=1e-7, atol=1e-9)


def test_ddpm_draws_every_level_and_names_it_by_its_number():
    config = composed("ddpm")
    (timestep,) = built(config, "timestep")
    u = (torch.arange(1000, dtype=F64) + 0.5) / 1000
    levels = seen(config, timestep.quantile(u)).c_noise
    torch.testing.assert_close(levels, torch.arange(1000, dtype=F64), rtol=0, atol=1e-9)


def test_score_sde_names_999_t_and_the_logarithm_of_half_its_sigma():
    t = torch.tensor([1e-5, 0.5, 1.0], dtype=F64)
    for name in ("score_sde_vp", "score_sde_sub_vp"):
        torch.testing.assert_close(seen(composed(name), t).c_noise, 999.0 * t)
    sigma = torch.tensor([0.02, 1.0, 100.0], dtype=F64)
    inputs = seen(composed("score_sde_ve"), sigma)
    torch.testing.assert_close(inputs.c_noise, torch.log(sigma / 2))
    assert torch.equal(inputs.c_in, torch.ones_like(sigma))


class Counting(torch.nn.Module):
    """A network whose output is 0; it keeps the times it receives."""

    def __init__(self):
        super().__init__()
        self.received = []

    def forward(self, x, t):
        self.received.append(float(t[0]))
        return torch.zeros_like(x)


def evaluations(config):
    network = Counting()
    path, parameterization, sampler = built(config, "path", "parameterization", "sampler")
    model = FlowModel(path, network=network, parameterization=parameterization)
    noise = torch.Generator().manual_seed(0)
    sampler.sample(
        model,
        torch.zeros(1, 1, 2, 2),
        noise=lambda _, z: torch.randn(z.shape, generator=noise, dtype=z.dtype),
    )
    return network.received


def test_flow_matching_evaluates_at_the_authors_times():
    """heun2 on their grid: both ends of each of 50 intervals."""
    grid = np.load(GOLDENS / "fb_edm_time_grid.npz")["t_ref_nfe50"]
    ends = np.repeat(grid, 2)[1:-1]
    np.testing.assert_allclose(evaluations(composed("flow_matching")), ends, rtol=0, atol=1e-6)


def test_ddpm_evaluates_at_every_level_once():
    levels = evaluations(composed("ddpm"))
    np.testing.assert_allclose(levels, np.arange(999, -1, -1), rtol=0, atol=1e-3)


def test_euler_maruyama_takes_score_sdes_steps():
    """1000 predictor steps of -1/1000 from t = 1, the last without noise."""
    given = ["sampler=sde", "sampler/diffusion=sbdm", "sampler.steps=1000"]
    config = check_job("train", ["path=vp", *given, "sampler.time_grid.t_end=0.001"]).config
    path, sampler = built(composed("score_sde_vp"), "path")[0], built(config, "sampler")[0]
    (parameterization,) = built(composed("score_sde_vp"), "parameterization")
    times = sampler.times(FlowModel(path, network=Counting(), parameterization=parameterization))
    expected = torch.linspace(1.0, 0.0, 1001, dtype=F64)
    torch.testing.assert_close(times, expected, rtol=0, atol=1e-12)


def test_predictor_corrector_evaluates_each_level_twice():
    levels = evaluations(composed("score_sde_ve", "sampler.steps=10"))
    sigmas = np.geomspace(50.0, 0.01, 10)
    np.testing.assert_allclose(np.exp(levels), np.repeat(sigmas, 2), rtol=1e-5)
