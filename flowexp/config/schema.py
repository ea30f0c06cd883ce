"""The typed top level of every verb's config; the groups keep the types of their own classes."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

__all__ = [
    "EvalConfig",
    "ExportConfig",
    "ImportConfig",
    "SampleConfig",
    "TrainConfig",
    "register",
    "starts_from_run",
]


@dataclass
class _Model:
    """The groups that make a model and say what it is asked."""

    dataset: Any = MISSING
    path: Any = MISSING
    network: Any = MISSING
    parameterization: Any = MISSING
    sampler: Any = MISSING
    guidance: Any = MISSING
    task: Any = MISSING
    launcher: Any = MISSING
    dirs: Any = MISSING


@dataclass
class TrainConfig(_Model):
    """What ``flowexp train`` (and ``flowexp check``) is told."""

    seed: int = 0
    teacher: str | None = None
    teacher_weights: str | None = None
    init: str | None = None
    init_weights: str = "raw"
    pairs: Any = None
    augmentation: Any = MISSING
    coupling: Any = MISSING
    timestep: Any = MISSING
    objective: Any = MISSING
    metric: dict[str, Any] = field(default_factory=dict)
    optimizer: Any = MISSING
    lr_schedule: Any = MISSING
    ema: dict[str, Any] = field(default_factory=dict)
    trainer: Any = MISSING
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)


@dataclass
class ImportConfig(TrainConfig):
    """What ``flowexp import`` is told: the file, and the training config its model belongs to."""

    file: str = MISSING
    name: str = MISSING
    # The value is train.yaml's, which this schema is merged onto.
    seed: int = MISSING


@dataclass
class _FromRun(_Model):
    """What every verb that starts from a run is told."""

    run: str = MISSING
    weights: str | None = None
    weight_transform: Any = MISSING
    checkpoint: str = "last"
    batch_size: int = 256
    seeds: Any = None
    latents: Any = None
    device: str = "auto"


@dataclass
class EvalConfig(_FromRun):
    """What ``flowexp eval`` is told."""

    metric: dict[str, Any] = field(default_factory=dict)
    num_samples: int = 5000
    repeats: int = 1


@dataclass
class SampleConfig(_FromRun):
    """What ``flowexp sample`` is told."""

    grid: bool = True
    png: bool = False


@dataclass
class ExportConfig(_FromRun):
    """What ``flowexp export`` is told."""

    format: str = "safetensors"


_SCHEMAS: dict[str, type] = {
    "train": TrainConfig,
    "eval": EvalConfig,
    "sample": SampleConfig,
    "import": ImportConfig,
    "export": ExportConfig,
}


def starts_from_run(config_name: str) -> bool:
    """Whether the verb's primary config takes ``run=DIR``."""
    return issubclass(_SCHEMAS.get(config_name, object), _FromRun)


def register() -> None:
    """Put the schemas where the primary configs find them (``base_train`` and so on)."""
    store = ConfigStore.instance()
    for name, node in _SCHEMAS.items():
        store.store(name=f"base_{name}", node=node)
