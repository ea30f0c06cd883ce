"""Swapping any one choice trains and samples: all pairs of options of all groups, on tiny sizes.

A covering set of rows is built greedily (``option_pairs.py``): every pair of options that the parts
themselves do not refuse appears in at least one row, and each row is composed, checked, trained for
one step and sampled. A pair that is refused is refused by the config check and by the real parts.
"""

import itertools
import math

import pytest
import torch

from flowexp.config import conf_dir
from flowexp.config.check import check_job
from flowexp.config.instantiate import instantiate
from flowexp.config.rules import stand_ins, unmet_needs
from flowexp.data import gather_batch
from flowexp.networks.base import facts_of
from flowexp.requirements import Parts, all_of
from flowexp.runs.assemble import build
from flowexp.seeding import SampleNoise, generator
from flowexp.training import training_parts
from flowexp.training.fit import prepare_coupling
from flowexp.training.inputs import TrainingDraws
from tests.e2e.option_pairs import (
    GROUPS,
    LEFT_OUT,
    STANDS_FOR,
    WALKED,
    covering_rows,
    known_of,
    overrides_of,
    pairs_of_options,
    refusal,
)

# Groups of a training that make no part of a model, a loss or a sample; tested by themselves.
NOT_WALKED = {
    "autoencoder",
    "autoencoder/scaling",
    "callbacks",
    "coupling/annealing",
    "coupling/cost",
    "coupling/solver",
    "coupling/tilt_correction",
    "debug",
    "dirs",
    "experiment",
    "launcher",
    "local",
    "logger",
    "metric",
    "network/encoder",
    "objective/driver",
    "objective/error_weight",
    "objective/guidance_inputs",
    "objective/labels",
    "objective/leap_weight",
    "objective/leg",
    "objective/perceptual",
    "objective/regressed",
    "objective/target",
    "order",
    "sampler/criterion",
    "sampler/diffusion",
    "sampler/last_step",
    "sampler/perturbation",
    "sampler/refiner",
    "sampler/statistics",
    "sampler/tokens",
    "sampler/variable",
    "task/maps",
    "task/mask",
    "task/tokenizer",
    "timestep/curriculum",
    "trainer",
}
# Groups of other verbs.
OF_OTHER_VERBS = {
    "budget",
    "calibration",
    "claim",
    "frames",
    "latents",
    "residual_guidance",
    "selection",
    "similarity",
    "start",
    "table",
    "weight_transform",
}
# they step in sigma/alpha, which is infinite at the end of paths that reach pure noise
IN_NOISE_TO_SIGNAL = {"deis", "dpm2", "edm_heun", "ipndm", "ipndm_v"}
# the override that sets two steps
STEPS = {
    "flowturbo": "sampler.blocks=H1P1",
    "flow_map": "sampler.steps=1",  # a consistency model jumps to the data only
    **dict.fromkeys(("dopri5", "dopri5_log", "rk45")),
}

ROWS = covering_rows()
REFUSED, SENSIBLE = pairs_of_options()
REFUSALS = {(a, b[0], refusal(*sorted([a, b])).key): (a, b) for a, b in REFUSED}.values()


def overrides_of_row(row: dict[str, str]) -> list[str]:
    chosen = overrides_of(*row.items())
    steps = STEPS.get(row["sampler"], "sampler.steps=2")
    chosen += [steps] if steps else []
    if steps == "sampler.steps=1":
        chosen = [o.replace("values=[0.8,0.4,0.0]", "values=[0.8,0.0]") for o in chosen]
    schedule = known_of(("path", row["path"]))[0]["path"]["schedule"]
    if row["sampler"] in IN_NOISE_TO_SIGNAL and schedule["t_max"] == 1:
        chosen.append("path.schedule.t_max=0.99")
    late = row["parameterization"] == "ve_precond" and row["sampler"] in ("sde", "sde_heun")
    if late and row["sampler/time_grid"] == "shifted":
        # this model starts a little later than these samplers end
        chosen.append("sampler.time_grid.t_end=0.05")
    return [*chosen, f"metric={'fd_raw' if row['network'] == 'mlp' else 'none'}"]


# each of the options that another stands for, in the first row of that other
BY_NAME = [
    {**next(row for row in ROWS if row[group] == other), group: name}
    for (group, name), other in ((key.rsplit("/", 1), other) for key, other in STANDS_FOR.items())
]


@pytest.mark.parametrize(
    "row",
    [*ROWS, *BY_NAME],
    ids=[*map(str, range(len(ROWS))), *(key.rpartition("/")[2] for key in STANDS_FOR)],
)
def test_trains_and_samples(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checked = check_job("train", overrides_of_row(row))
    assert [str(p) for p in checked.problems if p.refuses] == []
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
    prepare_coupling(training, parts.dataset.train())
    draws = TrainingDraws.of(training, seed=0)
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


@pytest.mark.parametrize(("a", "b"), REFUSALS, ids=[f"{a[1]}-{b[1]}" for a, b in REFUSALS])
def test_what_the_parts_refuse_is_refused_by_the_check_and_by_the_real_parts(a, b):
    said = refusal(*sorted([a, b]))
    assert said.key in [p.key for p in check_job("train", overrides_of(a, b)).problems]
    if said.key.startswith("sampler"):  # what a sampler takes is a matter of its signature
        return
    values, _ = known_of(a, b)
    expected = [vars(unmet) for unmet in unmet_needs(stand_ins(values))]
    if expected:
        assert [vars(unmet) for unmet in needs_of_real_parts(values)] == expected


def needs_of_real_parts(values):
    built = {key: instantiate(node, key=key) for key, node in values.items()}
    network = {"network": facts_of(built["network"])} if "network" in built else {}
    parts = Parts(**built | network)
    for key, part in built.items():
        needs = getattr(part, "needs", None)  # networks and optimizers may be foreign modules
        yield from (unmet.seen_from(key) for unmet in (all_of(needs(parts)) if needs else ()))


def on_disk() -> set[str]:
    """Every option of every group, as a path below conf."""
    files = [f.relative_to(conf_dir()).with_suffix("") for f in conf_dir().rglob("*.yaml")]
    return {file.as_posix() for file in files if len(file.parts) > 1}


def test_every_option_on_disk_is_walked_or_left_out_for_a_reason():
    in_rows = {f"{group}/{name}" for row in [*ROWS, *BY_NAME] for group, name in row.items()}
    elsewhere = {
        option
        for option in on_disk()
        for group in NOT_WALKED | OF_OTHER_VERBS
        if option.startswith(f"{group}/")
    }
    assert on_disk() - in_rows - elsewhere - LEFT_OUT == set()
    assert (LEFT_OUT | in_rows) - on_disk() == set()
    assert in_rows & LEFT_OUT <= set(STANDS_FOR)


def test_every_pair_of_walked_options_is_in_a_row_or_refused():
    """A pair may also be impossible because no option of a third group suits both."""
    covered = {frozenset(p) for row in ROWS for p in itertools.combinations(row.items(), 2)}
    everything = [(group, name) for group in GROUPS for name in WALKED[group]]
    pairs = [p for p in itertools.combinations(everything, 2) if p[0][0] != p[1][0]]
    refused = {frozenset(p) for p in REFUSED}
    impossible = [p for p in pairs if frozenset(p) not in covered | refused]
    assert {frozenset(p) for p in impossible}.isdisjoint(SENSIBLE)
    assert len(refused) < 400
    assert {(a[0], b[0]) for a, b in impossible} <= {
        ("augmentation", "network"),
        ("coupling", "task"),
        ("network", "guidance"),  # clipped to the range of images, which points have not
        ("network", "objective"),
        ("network", "sampler"),  # likewise
        ("network", "sampler/time_grid"),  # the size of an image, which points have not
        ("objective", "network"),
        ("parameterization", "guidance"),
        ("parameterization", "objective"),
        ("timestep", "network"),
        ("timestep", "parameterization"),
    }
