"""The typed top level of every verb's config; the groups keep the types of their own classes."""

import functools
from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

__all__ = [
    "CalibrateConfig",
    "CompareConfig",
    "EvalConfig",
    "ExportConfig",
    "ImportConfig",
    "PairsConfig",
    "ReportConfig",
    "SampleConfig",
    "StreamConfig",
    "TableConfig",
    "TrainConfig",
    "named_entries",
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
    recipe: str | None = None
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
class StreamConfig(_FromRun):
    """What ``flowexp stream`` is told."""

    frames: Any = MISSING
    residual_guidance: Any = MISSING
    similarity: Any = None
    times: list[float] = MISSING
    c_skip: list[float] | None = None
    c_out: list[float] | None = None
    add_noise: bool = True
    label: int | None = None
    seed: int = 0
    group: int = 1
    queue_size: int = 8
    png: bool = True


@dataclass
class PairsConfig(_FromRun):
    """What ``flowexp pairs`` is told."""

    start: Any = MISSING
    num: int = 100000
    shard_size: int = 2048


@dataclass
class CalibrateConfig(_FromRun):
    """What ``flowexp calibrate`` is told."""

    calibration: Any = MISSING
    seed: int = 0


@dataclass
class ExportConfig(_FromRun):
    """What ``flowexp export`` is told."""

    format: str = "safetensors"


@dataclass
class CompareConfig:
    """What ``flowexp compare`` is told."""

    runs: Any = MISSING
    format: str = "terminal"
    out: str | None = None


@dataclass
class ReportConfig:
    """What ``flowexp report`` is told."""

    runs: Any = MISSING
    out: str | None = None
    grids: int = 12


@dataclass
class _Extra:
    """Overrides of every job of one verb."""

    overrides: list[str] = field(default_factory=list)


@dataclass
class TableConfig:
    """What ``flowexp table`` is told."""

    name: str | None = None
    kind: str = "table"
    budget: Any = MISSING
    launcher: Any = MISSING
    dirs: Any = MISSING
    seeds: Any = None
    only: str | None = None
    dry: bool = False
    jobs: str = "outputs/jobs"
    out: str = "outputs/tables"
    train: _Extra = field(default_factory=_Extra)
    pairs: _Extra = field(default_factory=_Extra)
    calibrate: _Extra = field(default_factory=_Extra)
    eval: _Extra = field(default_factory=_Extra)
    job: str | None = None


_NAMED = dict[str, Any]
_SCHEMAS: dict[str, type] = {
    "train": TrainConfig,
    "eval": EvalConfig,
    "sample": SampleConfig,
    "stream": StreamConfig,
    "pairs": PairsConfig,
    "import": ImportConfig,
    "export": ExportConfig,
    "calibrate": CalibrateConfig,
    "table_run": TableConfig,
    "compare": CompareConfig,
    "report": ReportConfig,
}


def starts_from_run(config_name: str) -> bool:
    """Whether the verb's primary config takes ``run=DIR``."""
    return issubclass(_SCHEMAS.get(config_name, object), _FromRun)


def named_entries(config_name: str) -> set[str]:
    """The groups of a primary config that hold any number of named parts: callbacks, metric ..."""
    schema = _SCHEMAS.get(config_name)
    return set() if schema is None else {f.name for f in fields(schema) if f.type == _NAMED}


@functools.cache
def register() -> None:
    """Put the schemas where the primary configs find them (``base_train`` and so on)."""
    store = ConfigStore.instance()
    for name, node in _SCHEMAS.items():
        store.store(name=f"base_{name}", node=node)
