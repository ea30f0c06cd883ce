"""Everything a training is made of, typed; and the place that builds it from a config."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytorch_lightning import Callback
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.optim import Optimizer

from flowexp.augmentations import Augmentation
from flowexp.config.instantiate import instantiate
from flowexp.couplings import Coupling
from flowexp.data import Dataset
from flowexp.errors import UsageError
from flowexp.models import FlowModel
from flowexp.objectives import Objective
from flowexp.pipeline import Pipeline
from flowexp.runs.assemble import Built, known, require_fit
from flowexp.timesteps import TimestepDistribution
from flowexp.training.ema import EMA
from flowexp.training.lr_schedules import LRSchedule
from flowexp.training.settings import TrainerSettings

__all__ = ["TrainingParts", "training_parts"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingParts:
    """What is trained and how.

    Attributes:
        model: Path, network and parameterization; the network is trained in place.
        optimizer: Makes the optimizer from the parameters.
        augmentation: Change of the images that the network is conditioned on; None = none.
        pipeline: The guided model with its sampler, for callbacks that sample; None = no sampling.
    """

    model: FlowModel
    dataset: Dataset
    coupling: Coupling
    timestep: TimestepDistribution
    objective: Objective
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    lr_schedule: LRSchedule
    emas: Mapping[str, EMA]
    settings: TrainerSettings
    augmentation: Augmentation | None = None
    pipeline: Pipeline | None = None
    callbacks: Mapping[str, Callback] = field(default_factory=dict)
    loggers: Mapping[str, Logger] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(self.callbacks, Callback, "callbacks", "pytorch_lightning.Callback")
        _require(self.loggers, Logger, "logger", "pytorch_lightning.loggers.Logger")


def training_parts(config: Mapping[str, Any], built: Built) -> TrainingParts:
    """Build the rest of a training from its plain, resolved config; refuse what does not fit.

    Raises:
        UsageError: A part refused its values, needs another part than was chosen, or misses a file.
    """
    settings = instantiate(config["trainer"], key="trainer")
    names = ("augmentation", "coupling", "timestep", "objective")
    chosen = {name: instantiate(config[name], key=name) for name in names}
    model = built.model
    facts = known({"dataset": built.dataset, "pairs": config.get("pairs"), **chosen}, model)
    require_fit({**chosen, "parameterization": model.parameterization}, facts)
    chosen["objective"].check()
    return TrainingParts(
        model=model,
        dataset=built.dataset,
        pipeline=built.pipeline,
        settings=settings,
        **chosen,
        optimizer=instantiate(config["optimizer"], key="optimizer"),
        lr_schedule=instantiate(config["lr_schedule"], key="lr_schedule"),
        emas=_entries(config, "ema"),
        callbacks=_entries(config, "callbacks"),
        loggers=_entries(config, "logger"),
    )


def _entries(config: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The named entries of a group, without those that are switched off by null."""
    entries = instantiate(config[group], key=group)
    return {name: entry for name, entry in entries.items() if entry is not None}


def _require(entries: Mapping[str, object], kind: type, group: str, name: str) -> None:
    for key, entry in entries.items():
        if not isinstance(entry, kind):
            raise UsageError(
                f"{type(entry).__name__} is not a {name}.",
                key=f"{group}.{key}",
                remedy=f"Derive it from {name}.",
            )
