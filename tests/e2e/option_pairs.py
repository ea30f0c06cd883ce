"""Which pairs of options go together, and rows of options that hold every such pair.

The parts decide: each option becomes a stand-in, and the needs of two stand-ins are checked against
each other, on the default path and with everything else unknown. A pair that is neither refused
itself nor makes every choice of a third group impossible stands in at least one row.
"""

import functools
import itertools
import random
import re
from importlib.util import find_spec

import yaml
from omegaconf import OmegaConf

from flowexp.apps.list import options
from flowexp.config.loader import RunAwareLoader, search_path
from flowexp.config.problems import Problem
from flowexp.config.resolved import resolve
from flowexp.config.rules import check_rules, stand_ins, unmet_needs
from flowexp.config.signatures import signature_of
from flowexp.config.targets import check_targets
from tests.e2e.option_files import Choice, node_of, stated

# Options that differ from another one in numbers only (an order, a tableau, an archive's name, a
# budget): that one stands for them in pairs, and they are walked once by name, if data are here.
STANDS_FOR = {
    "optimizer/adamw_short": "adamw",
    "sampler/dpmpp_1s": "dpmpp_2m",
    "sampler/dpmpp_3m": "dpmpp_2m",
    "sampler/dpmpp_3m_taylor": "dpmpp_2m",
    "sampler/dpm_2m": "dpmpp_2m",
    "sampler/deis": "ab",
    "sampler/ipndm": "ab",
    "sampler/ipndm_v": "ab",
    "sampler/ralston": "midpoint",
    "sampler/heun3": "rk4",
    "sampler/rk4_38": "rk4",
    "sampler/rk45": "dopri5",
    "sampler/predictor_corrector": "ancestral",
    # l2 times a constant, with which one step of SGD leaves the range of sensible weights
    "objective/premetric/sum": "l2",
    "objective/premetric/sum_of_squares": "l2",
    "objective/premetric/l2_per_dimension": "l2",
    "parameterization/edm_shifted": "edm",
    "timestep/at_boundary": "lognormal",
    "timestep/log_student": "lognormal",
    "timestep/truncated": "lognormal",
}
# What asks a finished run (a teacher, stored pairs, a calibration) has tests of its own.
NEEDS_A_RUN = {
    "coupling/annealed_pairs",
    "coupling/chords",
    "coupling/pairs",
    "network/easycontrol",
    "objective/flow_guided",
    "objective/flow_guided_paper",
    "objective/phased",
    "objective/slimflow",
    "objective/slimflow_lpips",
    "objective/velocity_refinement",
    "parameterization/velocity_increment",
    "sampler/boss",
    "sampler/dpm_solver_v3",
    "sampler/dpm_solver_v3_5",
    "sampler/dpm_solver_v3_guided",
    "sampler/dpm_solver_v3_latent",
    "sampler/speculative",
    "sampler/time_grid/bellman",
}
# These go with each other only; tests/samplers/test_mar.py and tests/e2e/test_speculative.py
# train and sample them.
TOKEN_BY_TOKEN = {"network/mar", "objective/masked", "sampler/mar", "task/masked_tokens"}
# Their data are not in this repository; their readers have tests of their own. The two derived from
# digits are made for an experiment that is walked by itself.
NEEDS_DATA = {
    "dataset/afhqv2_64",
    "dataset/celeba_hq",
    "dataset/cifar10",
    "dataset/cifar10_jpeg",
    "dataset/cifar10_zip",
    "dataset/digits_blurred",
    "dataset/digits_inverted",
    "dataset/eight_gaussians",
    "dataset/fashion10k_bags",
    "dataset/fashion_mnist",
    "dataset/ffhq64",
    "dataset/huggingface",
    "dataset/image_folder",
    "dataset/imagenet64",
    "dataset/swiss_roll",
    "dataset/torchvision",
    "task/paired_image",
}
# What needs a package that is not a requirement, where it is not installed.
NEEDS_A_PACKAGE = set() if find_spec("diffusers") else {"network/diffusers_unet"}
# Flow maps go with few other options. These stand for them in pairs; the others are trained and
# sampled with what they need in tests/training/test_flow_map_presets.py.
FLOW_MAPS_IN_PAIRS = {"ect", "meanflow", "sct"}
FLOW_MAP_OBJECTIVES = {
    f"flowexp.objectives.{name}"
    for name in ("FlowMapMatching", "MomentMatching", "TerminalVelocityMatching")
}
FLOW_MAPS = [
    name
    for name in options("objective")
    if node_of(("objective", name))["_target_"] in FLOW_MAP_OBJECTIVES
]
WITH_FLOW_MAPS = {
    "ema/consistency",
    "guidance/embedded",
    "parameterization/average_velocity_guided",
    "parameterization/simple_edm",
    "path/imm",
    "sampler/consistency",
    "timestep/capped",
    "timestep/dyadic",
    "timestep/ect_imagenet64",
    "timestep/ict",
    "timestep/imm",
    "timestep/meanflow",
    "timestep/meanflow_v1",
    "timestep/noise_grid",
    "timestep/shrinking_ratio",
    "timestep/soflow",
    "timestep/start_and_below",
    "timestep/tcm",
    "timestep/tcm_imagenet64",
    "timestep/tcm_stage2",
    "timestep/to_data",
    "timestep/tvm",
    *(f"objective/{name}" for name in FLOW_MAPS if name not in FLOW_MAPS_IN_PAIRS),
}
# Sequences of images need four parts that go with each other only; they are trained and sampled
# together in tests/e2e/test_sequences.py.
WITH_SEQUENCES = {"network/arflow", "timestep/descending", "sampler/arflow"}
# refused by each objective that takes times r > 0, of three parts together
ENDS_AT_THE_DATA = {
    frozenset([("timestep", "sorted"), ("parameterization", name)])
    for name in ("consistency", "trigflow_consistency")
}
# They go with each other only, and are trained and sampled together in test_latents.py.
AN_AUTOENCODER = {
    "network/kl_autoencoder",
    "objective/autoencoding",
    "sampler/reconstruction",
    "task/reconstruction",
}
# A velocity and a score need each other, and twice the channels: see tests/samplers and toy2d/sf2m.
WITH_A_SCORE = {"objective/flow_and_score_matching", "parameterization/flow_and_score"}
LEFT_OUT = (
    AN_AUTOENCODER
    | NEEDS_A_RUN
    | NEEDS_DATA
    | NEEDS_A_PACKAGE
    | TOKEN_BY_TOKEN
    | WITH_A_SCORE
    | WITH_FLOW_MAPS
    | WITH_SEQUENCES
    | set(STANDS_FOR)
)

GROUPS = (
    "dataset",
    "path",
    "augmentation",
    "coupling",
    "timestep",
    "network",
    "parameterization",
    "objective",
    "objective/weighting",
    "objective/premetric",
    "sampler",
    "sampler/time_grid",
    "guidance",
    "task",
    "optimizer",
    "lr_schedule",
    "ema",
)
WALKED = {
    group: [name for name in options(group) if f"{group}/{name}" not in LEFT_OUT]
    for group in GROUPS
}

# the default distance needs a file that is not here
OFFLINE = ["objective/perceptual=efficientnet", "objective.perceptual.resize=32"]
_SONGUNET = ["model_channels=8", "num_blocks=1", "channel_mult=[1,2]"]
TINY = {
    "augmentation=edm": ["network.augment_dim=9"],
    "coupling=semidiscrete_ot": ["coupling.draws_per_item=0.1"],
    "network=unet": ["network.model_channels=8", "network.pixel_unshuffle=1"],
    "network=ddpmpp": [f"network.{o}" for o in _SONGUNET],
    "network=ncsnpp": [f"network.{o}" for o in _SONGUNET],
    "network=adm": [f"network.{o}" for o in _SONGUNET],
    "network=ddpm": [f"network.{o}" for o in _SONGUNET],
    "network=edm2": [f"network.{o}" for o in _SONGUNET],
    "network=diffusers_unet": [
        "network.block_out_channels=[32]",
        "network.layers_per_block=1",
        "network.down_block_types=[DownBlock2D]",
        "network.up_block_types=[UpBlock2D]",
    ],
    "network=dit": ["network.hidden_size=16", "network.depth=1", "network.num_heads=2"],
    "network=lora": ["network.network.model_channels=8", "network.network.pixel_unshuffle=1"],
    "network=captioned": ["network.network.model_channels=8", "network.network.pixel_unshuffle=1"],
    "network=mlp": ["network.hidden=16", "network.depth=1"],
    "sampler/time_grid=given": ["sampler.time_grid.values=[0.8,0.4,0.0]"],
    **{f"objective={name}": OFFLINE for name in ("lpips", "lpips_huber", "lpips_huber_divt")},
}


def overrides_of(*choices: Choice) -> list[str]:
    """Overrides that choose these options, at tiny sizes."""
    ordered = sorted(choices, key=lambda choice: choice[0].count("/"))
    chosen = [f"{group}={value}" for group, value in ordered]
    if ("network", "mlp") in choices and "dataset" not in dict(choices):
        chosen.append("dataset=toy2d")
    extra = [override for choice in chosen for override in TINY.get(choice, [])]
    if ("network", "lora") in choices or ("network", "captioned") in choices:
        extra = [o.replace("network.augment", "network.network.augment") for o in extra]
    return [*chosen, *extra]


def root(key: str) -> str:
    return key.partition(".")[0]


def top(choice: Choice) -> str:
    return choice[0].partition("/")[0]


@functools.cache
def default() -> dict:
    """The default training, unresolved."""
    config = RunAwareLoader(search_path()).compose("train", [])
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return OmegaConf.to_container(config, resolve=False)


def with_options(*choices: Choice) -> dict:
    """The unresolved default training with these options, at tiny sizes.

    Raises:
        LookupError: An option has no such part to choose.
    """
    config = dict(default())
    if ("network", "mlp") in choices:
        config["dataset"] = node_of(("dataset", "toy2d"))  # instead of pictures
    for group, name in sorted(choices, key=lambda choice: choice[0].count("/")):
        outer, _, inner = group.partition("/")
        if not inner:
            within = [(g.removeprefix(f"{group}/"), n) for g, n in choices if top((g, n)) == group]
            replaced = tuple((g, n) for g, n in within if g != group)
            config[group], allowed = stated(group, name, replaced)
            for part, _ in replaced:
                if part not in allowed:
                    raise LookupError(f"{group} has no {part} to choose")
                if "/" not in part and isinstance(config[group].get(part), dict):
                    kept = taken(config[group][part])
                    config[group] = {**config[group], part: kept}
        elif outer not in dict(choices):
            config[outer] = {**config[outer], inner: node_of((group, name))}
    made = OmegaConf.create(
        {key: config[key] for key in reached(config, ["path", *map(top, choices)])}
    )
    for override in overrides_of(*choices):
        key, _, value = override.partition("=")
        if "." in key and "/" not in key and OmegaConf.select(made, key.rpartition(".")[0]):
            OmegaConf.update(made, key, yaml.safe_load(value))
    return made


def taken(node: dict) -> dict:
    """The node without values that were meant for another class, which are left out."""
    accepted = signature_of(node["_target_"]) if "_target_" in node else None
    if accepted is None or accepted.open_ended:
        return node
    names = accepted.parameters
    return {k: v for k, v in node.items() if k in names or k.startswith("_")}


def reached(config: dict, names: list[str]) -> list[str]:
    """These groups and those that their interpolations lead to."""
    found, ahead = [], list(names)
    while ahead:
        name = ahead.pop()
        if name in config and name not in found:
            found.append(name)
            ahead += groups_named(str(config[name]))
    return found


def groups_named(text: str) -> list[str]:
    """The groups that interpolations lead to, ``${path.D}`` or ``${oc.select:path.D,1}``."""
    return re.findall(r"\$\{(?:oc\.select:)?(\w+)", text)


def known_of(*choices: Choice) -> tuple[dict, list]:
    """The resolved groups of some options and of the path, and what does not resolve."""
    made = with_options(*choices)
    names = dict.fromkeys(["path", *map(top, choices)])
    resolved = resolve(made)
    failed = [(key, to) for key, to in resolved.failed if {root(key), root(to)} <= set(names)]
    found = [Problem(key, f"it takes {to}, which is not there.") for key, to in failed]
    values = {name: resolved.values[name] for name in names}
    found += check_targets(values, missing=resolved.missing)
    refused = [p for p in check_rules(values, missing=resolved.missing) if p.refuses]
    return values, found + refused


@functools.cache
def alone(choice: Choice) -> object:
    """The stand-in of an option beside the default ones."""
    return stand_ins(known_of(choice)[0]).get(top(choice))


@functools.cache
def text_of(choice: Choice) -> str:
    return str(node_of(choice)) + "".join(TINY.get("=".join(choice), []))


def entwined(a: Choice, b: Choice) -> bool:
    """Whether the nodes of two options depend on each other before they become parts."""
    if top(a) == top(b):
        return True
    return any(
        top(y) in named_by(x) or f"{top(y)}." in "".join(TINY.get("=".join(x), []))
        for x, y in ((a, b), (b, a))
    )


@functools.cache
def named_by(choice: Choice) -> set[str]:
    """The groups that an option takes values from; those of the data come by the autoencoder."""
    found = set(groups_named(text_of(choice)))
    if "autoencoder" in found:
        found |= set(groups_named(str(default()["autoencoder"])))
    return found


@functools.cache
def refusal(a: Choice, b: Choice) -> Problem | None:
    """Why two options do not go together; None if they do.

    A part of another goes with what any choice of that other goes with, not only the default one.
    """
    found = refusal_beside_defaults(a, b)
    outer = top(a) if "/" in a[0] else top(b)
    if found is None or outer in (a[0], b[0]) or a[0].count("/") == b[0].count("/"):
        return found
    for third in ((outer, option) for option in WALKED[outer]):
        if go_together(a, third) and go_together(b, third) and not known_of(a, b, third)[1]:
            return None
    return found


def refusal_beside_defaults(a: Choice, b: Choice) -> Problem | None:
    """The same, with the default options of all groups besides those two."""
    if not entwined(a, b):
        parts = {"path": alone(("path", "linear")), top(a): alone(a), top(b): alone(b)}
        unmet = next((u for u in unmet_needs(parts) if u.refuses), None)
        return None if unmet is None else Problem(unmet.key, unmet.problem, unmet.remedy)
    try:
        return next(iter(known_of(a, b)[1]), None)
    except LookupError as error:
        return Problem(max(a[0], b[0]), str(error))


def go_together(a: Choice, b: Choice) -> bool:
    return a[0] == b[0] or refusal(*sorted([a, b])) is None


def third_groups_allow(a: Choice, b: Choice) -> bool:
    """Whether every group that is not a part of another has an option that suits both."""
    others = [group for group in GROUPS if "/" not in group and group not in (a[0], b[0])]
    return frozenset([a, b]) not in ENDS_AT_THE_DATA and all(
        any(
            go_together(a, c) and go_together(b, c)
            for c in ((group, o) for o in WALKED[group])
            if ENDS_AT_THE_DATA.isdisjoint({frozenset([a, c]), frozenset([b, c])})
        )
        for group in others
    )


def everything() -> list[Choice]:
    return [(group, value) for group, values in WALKED.items() for value in values]


@functools.cache
def pairs_of_options() -> tuple[list[tuple[Choice, Choice]], set[frozenset[Choice]]]:
    """Pairs that are refused, and pairs that must stand in a row."""
    refused, sensible = [], set()
    for a, b in itertools.combinations(everything(), 2):
        if a[0] == b[0]:
            continue
        if not go_together(a, b):
            refused.append((a, b))
        elif third_groups_allow(a, b):
            sensible.add(frozenset([a, b]))
    return refused, sensible


def covering_rows() -> list[dict[str, str]]:
    """Rows in which every sensible pair stands, built greedily; a part that a choice has no use
    for (the time grid of an adaptive sampler) is left out of its row.
    """
    rng = random.Random(0)
    sensible = pairs_of_options()[1]
    missing, rows = set(sensible), []
    while missing:
        row = dict(min(missing, key=sorted))
        shuffled = rng.sample(GROUPS, len(GROUPS))
        for group in sorted(shuffled, key=lambda g: -len(WALKED[g])):
            if group not in row:
                pairs = {
                    v: {frozenset([(group, v), o]) for o in row.items()} for v in WALKED[group]
                }
                found = [v for v in WALKED[group] if pairs[v] <= sensible]
                if found:
                    row[group] = max(found, key=lambda v: (len(pairs[v] & missing), rng.random()))
        missing -= {frozenset(p) for p in itertools.combinations(row.items(), 2)}
        rows.append(row)
    return rows
