"""Every yaml in conf/ can be selected, is sound, and explains itself."""

import ast
import itertools
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from flowexp.config import conf_dir
from flowexp.config.check import check

CONF = conf_dir()
FILES = sorted(CONF.rglob("*.yaml"))
PRIMARY = [f for f in FILES if f.parent == CONF]
# local/ is the user's own; table/ and claim/ hold published figures, which are read, not composed
DATA = {"local", "table", "claim"}
OPTIONS = [f for f in FILES if f.parent != CONF and f.relative_to(CONF).parts[0] not in DATA]
EXPERIMENTS = [f for f in OPTIONS if f.relative_to(CONF).parts[0] == "experiment"]
PACKAGES = ("paths", "couplings", "timesteps", "networks", "parameterizations", "objectives",
            "samplers", "guidance", "tasks")  # fmt: skip

VAE = Path(__file__).parent.parent / "autoencoders" / "data" / "vae"
AUTOENCODER = [f"autoencoder.folder={VAE}", "autoencoder.channels=4"]
# what an option needs beside it, because the default of the other group does not fit it
COMPANIONS = {
    "augmentation/edm": ["network.augment_dim=9"],
    "dataset/toy2d": ["network=mlp", "metric=fd_raw"],
    "dataset/moons": ["network=mlp", "metric=fd_raw"],
    "dataset/eight_gaussians": ["network=mlp", "metric=fd_raw"],
    "dataset/checkerboard": ["network=mlp", "metric=fd_raw"],
    "dataset/swiss_roll": ["network=mlp", "metric=fd_raw"],
    "dataset/huggingface": [
        "dataset.path=somewhere",
        "dataset.resolution=32",
        "dataset.num_classes=3",
        "dataset.class_names=null",
    ],
    "dataset/torchvision": ["dataset.name=MNIST", "dataset.root=somewhere"],
    "dataset/image_folder": [
        "dataset.archive=somewhere",
        "dataset.resolution=32",
        "dataset.channels=3",
        "dataset.use_labels=false",
        "dataset.num_classes=0",
        "dataset.class_names=null",
    ],
    "autoencoder/folder": AUTOENCODER,
    "autoencoder/scaling": ["autoencoder=folder", *AUTOENCODER],
    "experiment/fashion10k/latent_flow": AUTOENCODER,
    "experiment/fashion_mnist/latent_flow": AUTOENCODER,
    "experiment/fashion10k/arflow": AUTOENCODER,
    "experiment/fashion10k/arflow_plain": AUTOENCODER,
    "experiment/fashion10k/mar": AUTOENCODER,
    "experiment/fashion10k/mar_draft": AUTOENCODER,
    "objective/autoencoding": ["network=kl_autoencoder", "parameterization=data"],
    "sampler/reconstruction": [
        "network=kl_autoencoder",
        "objective=autoencoding",
        "task=reconstruction",
    ],
    "task/reconstruction": [
        "network=kl_autoencoder",
        "objective=autoencoding",
        "sampler=reconstruction",
    ],
    "network/mlp": ["dataset=toy2d", "metric=fd_raw"],
    "sampler/flow_map": ["parameterization=average_velocity"],
    "task/mask": ["task=inpainting"],
    "task/maps": ["task=semantic_map"],
    "task/maps/partner": ["dataset=digits_blurred"],
    "task/paired_image": ["dataset=digits_blurred"],
    "coupling/pairs": ["pairs=somewhere"],
    "coupling/annealed_pairs": ["pairs=somewhere"],
    "coupling/chords": ["init=somewhere"],
    "coupling/annealing": ["coupling=annealed_pairs", "pairs=somewhere"],
    "objective/velocity_refinement": [
        "teacher=somewhere",
        "parameterization=velocity_increment",
        "network.in_channels=2",
    ],
    "parameterization/velocity_increment": [
        "teacher=somewhere",
        "objective=velocity_refinement",
        "network.in_channels=2",
    ],
    "metric/solver_error_of_teacher": ["metric.solver_error.reference.run=somewhere"],
    "sampler/refiner": ["sampler=flowturbo", "sampler.refiner.run=somewhere"],
    "sampler/diffusion": ["sampler=sde"],
    "sampler/last_step": ["sampler=sde"],
    "sampler/statistics": ["sampler=dpm_solver_v3"],
    "sampler/statistics/reference": ["sampler.statistics.directory=somewhere"],
    "sampler/perturbation/churn": ["sampler.perturbation.S_churn=1"],
    "sampler/perturbation/state_noise": ["sampler.perturbation.scale=0.1"],
    "objective/perceptual": ["objective=lpips_huber"],
    "objective/flow_guided": ["teacher=somewhere"],
    "objective/flow_guided_paper": ["teacher=somewhere"],
    "objective/phased": ["teacher=somewhere"],
    "objective/slimflow": ["teacher=somewhere"],
    "objective/slimflow_lpips": ["teacher=somewhere"],
    "network/captioned": ["task=captions"],
    "network/easycontrol": ["task=edges"],
    "network/encoder": ["network=captioned", "task=captions"],
    "task/captions": ["network=captioned"],
    "task/tokenizer": ["network=captioned", "task=captions"],
    "timestep/fixed": ["parameterization=velocity"],
    "timestep/uniform_grid": ["parameterization=velocity"],
    "network/mar": ["task=masked_tokens"],
    "task/masked_tokens": ["network=mar"],
    "objective/masked": ["network=mar", "task=masked_tokens"],
    "sampler/mar": ["network=mar", "task=masked_tokens"],
    "sampler/tokens": ["sampler=mar", "network=mar", "task=masked_tokens"],
    "sampler/speculative": ["network=mar", "task=masked_tokens", "sampler.draft=somewhere"],
    "sampler/criterion": [
        "sampler=speculative",
        "network=mar",
        "task=masked_tokens",
        "sampler.draft=somewhere",
    ],
    "sampler/time_grid/given": ["sampler.time_grid.values=[1.0,0.5,0.0]", "sampler.steps=2"],
}
# trained on stored pairs, which only the user can name
REFLOWS = [
    *(f"cifar10/rfpp_{letter}" for letter in "abcdefg"),
    *(f"cifar10/{name}" for name in ("reflow", "reflow_distill", "reflow_distill_k")),
    *(f"fashion10k/{name}" for name in ("reflow", "rfpp", "reflow_distill")),
    *(f"{dataset}/rfpp" for dataset in ("afhqv2_64", "ffhq64", "imagenet64")),
]
SLIM = [
    *(f"cifar10/slimflow_{size}" for size in ("28m", "15m", "7m", "3m")),
    *(f"ffhq64/slimflow_{size}" for size in ("28m", "15m")),
    *(f"imagenet64/slimflow_{size}" for size in ("81m", "45m")),
]
REFLOWS += [
    *SLIM,
    *(f"cifar10/instaflow_{stage}" for stage in ("reflow", "distill_l2", "distill")),
    *(f"fashion10k/instaflow{stage}" for stage in ("", "_distill_l2", "_distill")),
    *(f"fashion10k/slimflow_{kind}" for kind in ("reflow", "annealed", "distill")),
    "cifar10/rectified_diffusion_vp",
    "cifar10/rectified_diffusion_released",
    "fashion10k/rectified_diffusion_reflow",
]
COMPANIONS |= {f"experiment/{name}": ["pairs=somewhere"] for name in REFLOWS}
for _dataset in ("cifar10", "fashion10k"):
    COMPANIONS[f"experiment/{_dataset}/flowturbo_refiner"] = ["teacher=somewhere"]
GUIDED = [*(f"{name}_distill" for name in SLIM), "fashion10k/slimflow_distill_guided"]
COMPANIONS |= {f"experiment/{name}": ["pairs=somewhere", "teacher=somewhere"] for name in GUIDED}
COMPANIONS["experiment/fashion10k/rectified_diffusion_phased"] = ["teacher=somewhere"]
# sequences of images, which need each other
SEQUENCES = [
    "network=arflow",
    "order=class_sequences",
    "timestep=descending",
    "trainer.batch_size=100",
]
COMPANIONS |= {
    name: [o for o in SEQUENCES if o != name.replace("/", "=")]
    for name in ("network/arflow", "order/class_sequences", "timestep/descending", "sampler/arflow")
}
# flow maps: parts that need several times per sample, and a network conditioned on them
TWO_TIMES = ["parameterization=average_velocity", "timestep=sorted"]
SPLIT = ["objective=split_mean_flow", *TWO_TIMES]
GUIDED_MAP = [
    "parameterization=average_velocity_guided",
    "timestep=sorted",
    "network.out_channels=2",
]
ALL_INPUTS = "parameterization.conditions_on=[gap,guidance_scale,guidance_start,guidance_end]"
SCALE_INPUT = "parameterization.conditions_on=[gap,guidance_scale]"
DYADIC = ["parameterization=average_velocity", "timestep=dyadic"]
TERMINAL = ["parameterization=average_velocity", "timestep=tvm",
            "+ema.target={_target_: flowexp.training.ConstantEMA, decay: 0.99}"]  # fmt: skip
MOMENTS = ["parameterization=simple_edm", "timestep=imm"]
TO_DATA = ["parameterization=consistency", "timestep=ect", "sampler=flow_map"]
ON_A_GRID = ["parameterization=consistency", "timestep=noise_grid", "ema=consistency",
             "sampler=flow_map"]  # fmt: skip
TRIGFLOW = ["parameterization=trigflow_consistency", "path=edm", "sampler=flow_map"]
TEACHER = ["teacher=somewhere"]


def _without(overrides, group):
    return [o for o in overrides if not o.startswith(f"{group}=")]


OBJECTIVES = {
    **dict.fromkeys(
        ("flow_map", "meanflow", "meanflow_guided", "split_mean_flow", "alpha_flow",
         "alpha_flow_guided", "soflow", "soflow_guided", "lsd", "esd", "psd_m", "psd_u"),
        TWO_TIMES,
    ),
    "split_mean_flow_teacher": [*TEACHER, *TWO_TIMES],
    "improved_meanflow": GUIDED_MAP,
    "shortcut": DYADIC,
    "tvm": TERMINAL,
    "imm": MOMENTS,
    **dict.fromkeys(("ect", "ict", "tcm"), TO_DATA),
    "tcm_stage2": [*TEACHER, *TO_DATA],
    "consistency_training": ON_A_GRID,
    "consistency_distillation": [*TEACHER, *ON_A_GRID],
    "sct": TRIGFLOW,
    "scd": [*TEACHER, *TRIGFLOW],
}  # fmt: skip
ECT, SCT = ["objective=ect", *TO_DATA], ["objective=sct", *TRIGFLOW]
LEGS = ("half", "random", "whole", "tangent", "lagrangian", "eulerian", "doubling", "scheduled")
PARTS_OF = {
    **{part: SPLIT for part in ("driver/data", "driver/guided", "driver/head", "driver/mix")},
    **{part: SPLIT for part in ("driver/own_step", "driver/own_velocity", "driver/target")},
    **{part: SPLIT for part in ("error_weight", "labels", "guidance_inputs", "leap_weight")},
    **{part: SPLIT for part in ("regressed/average_velocity", "regressed/residual")},
    **{part: SPLIT for part in ("target/online", "target/average", "target/guided_shortest")},
    **{f"leg/{leg}": SPLIT for leg in LEGS},
    "driver/teacher": [*TEACHER, *SPLIT],
    "driver/teacher_step": [*TEACHER, *ECT],
    "driver/data_chord": ECT,
    "driver/mix": [*SPLIT, "objective/driver=guided"],
    "driver/mix/guidance_scale": ["objective/guidance_inputs=drawn", ALL_INPUTS],
    "guidance_inputs/drawn": [ALL_INPUTS],
    "guidance_inputs/constant": [SCALE_INPUT],
    "guidance_inputs/inverse": [SCALE_INPUT],
    "guidance_inputs/uniform": [SCALE_INPUT],
    "leg/given": ECT,
    "leg/derivative": [*SPLIT, "objective/leg=tangent"],
    "leg/direction": [*SPLIT, "objective/leg=tangent"],
    "leg/limit": SCT,
    "leg/schedule": [*SPLIT, "objective/leg=scheduled"],
    "leg/trigflow_tangent": SCT,
    "regressed/end_point": ECT,
    "regressed/perceptual_end_point": ECT,
    "regressed/trigflow_output": SCT,
    "target/average_target": ["objective=ect", *ON_A_GRID],
    "target/truncated": [*TEACHER, *ECT],
}
COMPANIONS |= {f"objective/{name}": found for name, found in OBJECTIVES.items()}
COMPANIONS |= {f"objective/{name}": found for name, found in PARTS_OF.items()}
COMPANIONS |= {
    f"timestep/{law}": [f"objective={name}", *_without(OBJECTIVES[name], "timestep")]
    for name, laws in {
        "meanflow": (
            "sorted",
            "capped",
            "meanflow",
            "meanflow_v1",
            "soflow",
            "start_and_below",
            "to_data",
        ),
        "shortcut": ("dyadic",),
        "tvm": ("tvm",),
        "imm": ("imm",),
        "ect": (
            *("shrinking_ratio", "noise_grid", "ict", "ect", "ect_imagenet64"),
            *("tcm", "tcm_imagenet64", "tcm_stage2"),
        ),
    }.items()
    for law in laws
}
COMPANIONS |= {
    f"parameterization/{rule}": [
        f"objective={name}",
        *_without(OBJECTIVES[name], "parameterization"),
    ]
    for name, rule in {
        "meanflow": "average_velocity",
        "improved_meanflow": "average_velocity_guided",
        "imm": "simple_edm",
        "ect": "consistency",
        "sct": "trigflow_consistency",
    }.items()
}
COMPANIONS |= {
    "timestep/curriculum": ["objective=ect", *_without(ON_A_GRID, "ema")],
    "ema/consistency": ["objective=ect", *_without(ON_A_GRID, "ema")],
    "sampler/flow_map": ["objective=meanflow", *TWO_TIMES],
    "sampler/consistency": ["path=edm", "objective=ect", *_without(TO_DATA, "sampler")],
    "guidance/embedded": ["objective=improved_meanflow", *GUIDED_MAP],
    **dict.fromkeys(("experiment/cifar10/tcm_stage2", "experiment/cifar10/cd",
                     "experiment/imagenet64/tcm_stage2", "experiment/imagenet64/scd",
                     "experiment/cifar10/scd"), TEACHER),
}  # fmt: skip


_SCORED = ["parameterization=flow_and_score", "objective=flow_and_score_matching",
           "network.out_channels=2"]  # fmt: skip
COMPANIONS |= {
    "coupling/cost": ["coupling=weighted"],
    "coupling/tilt_correction": ["coupling=weighted"],
    "coupling/solver": ["coupling=minibatch_ot"],
    "objective/flow_and_score_matching": _SCORED,
    "parameterization/flow_and_score": _SCORED,
    "sampler/diffusion/brownian": _SCORED,
}


def option(file: Path) -> str:
    return str(file.relative_to(CONF).with_suffix(""))


TUNED = {option(file) for file in EXPERIMENTS if "init=" in file.read_text().splitlines()[1]}


def of_train(name: str) -> bool:
    """Whether the option is one of train's; the others need a run."""
    others = ("budget/", "dirs/table", "weight_transform/", "latents/", "start/", "calibration/",
              "frames/", "selection/",
              "residual_guidance/", "similarity/", "dirs/stream", "dirs/eval", "dirs/sample",
              "dirs/export", "dirs/pairs", "dirs/calibrate")  # fmt: skip
    return not name.startswith(others)


@pytest.mark.parametrize("file", FILES, ids=[str(f.relative_to(CONF)) for f in FILES])
def test_starts_with_a_line_that_explains_it(file):
    lines = file.read_text().splitlines()
    first = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert first.startswith("# ")
    assert len(first) > 8


@pytest.mark.parametrize("name", [option(f) for f in OPTIONS if of_train(option(f))])
def test_every_option_alone_is_sound(name):
    deep = 1 if name.startswith(("experiment/", "debug/")) else name.count("/")
    parts = name.split("/")
    group, value = "/".join(parts[:deep]), "/".join(parts[deep:])
    companions = [o for prefix, o in COMPANIONS.items() if f"{name}/".startswith(f"{prefix}/")]
    overrides = [f"{group}={value}", *itertools.chain(*companions)]
    overrides += ["init=somewhere"] if name in TUNED else []
    if name == "launcher/ray" and not find_spec("ray"):
        pytest.skip("Ray does not go into one environment with joblib's launcher")
    assert [str(p) for p in check("train", overrides).problems] == []


def test_every_group_is_in_a_primary_config():
    selected = set()
    for file in PRIMARY:
        for entry in yaml.safe_load(file.read_text())["defaults"]:
            if isinstance(entry, dict):
                selected |= {key.removeprefix("optional ") for key in entry}
    groups = {f.relative_to(CONF).parts[0] for f in OPTIONS}
    assert groups <= selected


@pytest.mark.parametrize("file", EXPERIMENTS, ids=[option(f) for f in EXPERIMENTS])
def test_experiments_say_where_they_come_from(file):
    text = file.read_text()
    assert "# @package _global_" in text
    assert f"flowexp train experiment={option(file).removeprefix('experiment/')}" in text


def test_every_class_of_a_method_package_has_a_yaml():
    targets = set()
    for file in OPTIONS:
        for line in file.read_text().splitlines():
            if "_target_:" in line:
                targets.add(line.split("_target_:")[1].strip().rpartition(".")[2])
    root = Path(__file__).resolve().parents[2] / "flowexp"
    missing = []
    for package in PACKAGES:
        for file in (root / package).glob("*.py"):
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.ClassDef) and _is_a_choice(node):
                    missing += [f"{package}.{node.name}"] if node.name not in targets else []
    assert sorted(missing) == sorted(NOT_SELECTED_BY_NAME)


# bases of others, not chosen in a config
NOT_SELECTED_BY_NAME = {
    "couplings.BatchCoupling",
    "networks.LeveledUNet",
    "samplers.LinearMultistepSampler",
    "samplers.RungeKutta",
    "tasks.HeldOut",
}

_ABSTRACT = {"ABC", "Protocol"}
_PARTS = {"Schedule", "Coupling", "TimestepDistribution", "Network", "Parameterization",
          "Objective", "Sampler", "FixedStepSampler", "MultistepSampler", "Statistics", "TimeGrid",
          "Guidance", "Task", "Weighting", "Premetric", "ImageNetwork",
          "BetweenLevels", "PredictsNoise"}  # fmt: skip


def _is_a_choice(node: ast.ClassDef) -> bool:
    bases = {ast.unparse(b).rpartition(".")[2] for b in node.bases}
    abstract = bool(bases & _ABSTRACT) or any(
        "abstractmethod" in ast.unparse(d)
        for item in node.body
        if isinstance(item, ast.FunctionDef)
        for d in item.decorator_list
    )
    return (
        bool(bases & _PARTS)
        and node.name not in _PARTS
        and not abstract
        and not node.name.startswith("_")
    )
