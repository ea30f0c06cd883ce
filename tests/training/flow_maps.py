"""Trainings of flow maps small enough to be run many times in a test."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback

from flowexp.couplings import Independent
from flowexp.models import FlowModel
from flowexp.networks import DiT
from flowexp.objectives import FlowMapMatching, Objective, WeightedSum
from flowexp.objectives.flow_map import (
    JVP,
    Adaptive,
    CentralDifference,
    DataVelocity,
    EMATarget,
    FixedShare,
    OwnStep,
    RandomShare,
    Tangent,
)
from flowexp.objectives.premetrics import SquaredL2, SumOfSquares
from flowexp.parameterizations import EulerJump, FlowMap, VelocityPrediction
from flowexp.paths import Linear
from flowexp.paths import Path as FlowPath
from flowexp.seeding import derive_seed
from flowexp.timesteps import Sorted, Uniform
from flowexp.training import Constant, ConstantEMA, FitResult, TrainingParts
from tests.networks.tiny import perturb
from tests.training.tiny import Tiles, tiny_settings, train

EMAS = {"main": ConstantEMA(decay=0.9), "target": ConstantEMA(decay=0.5)}


def meanflow(derivative: object = None) -> Objective:
    leg = Tangent(derivative=derivative or JVP())
    return FlowMapMatching(
        driver=DataVelocity(), leg=leg, premetric=SumOfSquares(), error_weight=Adaptive(p=0.75)
    )


def split_mean_flow() -> Objective:
    return FlowMapMatching(driver=OwnStep(), leg=RandomShare(), premetric=SquaredL2())


def against_average() -> Objective:
    """A consistency-type objective: data velocity, then the way of an average."""
    return FlowMapMatching(
        driver=DataVelocity(),
        leg=FixedShare(share=0.25),
        premetric=SquaredL2(),
        target=EMATarget(name="target"),
    )


def together() -> Objective:
    """The sum of MeanFlow, by both derivatives, SplitMeanFlow and one against an average."""
    parts = {
        "meanflow": meanflow(),
        "difference": meanflow(CentralDifference()),
        "split_mean_flow": split_mean_flow(),
        "average": against_average(),
    }
    return WeightedSum(parts=parts)


def two_time_model(seed: int = 0, **network: Any) -> FlowModel:
    """A transformer with attention, conditioned on the gap; no layer is zero."""
    torch.manual_seed(derive_seed(seed, "init"))
    sizes = {"patch_size": 2, "hidden_size": 8, "depth": 1, "num_heads": 2, "label_dim": 3}
    image = {"img_resolution": 4, "in_channels": 1, "out_channels": 1}
    net = perturb(DiT(**(image | sizes | {"scalars": ["gap"]} | network)))
    rule = FlowMap(of=VelocityPrediction(), jump=EulerJump())
    return FlowModel(FlowPath(Linear()), network=net, parameterization=rule)


def train_flow_map(
    folder: Path, *, callbacks: Mapping[str, Callback] | None = None, **settings: Any
) -> FitResult:
    """The tiny training with a flow map; a quarter of the rows has r = t."""
    chosen = {**flow_map_choices(), "callbacks": callbacks or {}}
    return train(folder, settings=tiny_settings(**{"max_kimg": 0.08} | settings), **chosen)


def flow_map_parts() -> TrainingParts:
    """The same as parts."""
    return TrainingParts(
        dataset=Tiles(),
        settings=tiny_settings(),
        coupling=Independent(),
        lr_schedule=Constant(),
        **flow_map_choices(),
    )


def flow_map_choices() -> dict[str, Any]:
    """What the training has of its own."""
    return {
        "model": two_time_model(),
        "objective": together(),
        "timestep": Sorted(Uniform(), diagonal=0.25),
        "emas": EMAS,
        # Adam would blow up the rounding of gradients that are 0, such as those of key biases.
        "optimizer": partial(torch.optim.SGD, lr=0.02, momentum=0.5),
    }
