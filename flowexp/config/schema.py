"""The typed top level of every verb's config; the groups keep the types of their own classes."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from flowexp.config.problems import Problem
from flowexp.config.seed_text import parse_seeds
from flowexp.errors import UsageError
from flowexp.threads import AUTO

__all__ = ["TRAIN_FROM", "TRAIN_RUN", "named_entries", "out_of_range", "own_keys", "register",
           "starts_from_run", "trains", "values_of_training"]  # fmt: skip

TRAIN_FROM, TRAIN_RUN = "train_from", "train_run"
"""The primary configs of ``train from=RUN`` and ``train run=DIR``."""


_SEED = 2**63 - 1
_MANY = 10**7
"""More samples than this, or a larger batch, are a slip of the hand."""


def _at_least(least: int, *, default: int | None, most: int = _MANY) -> Any:  # noqa: ANN401 - a field
    """A field with a smallest and a largest value."""
    wanted = f"at least {least} and at most {most}"
    return field(default=default, metadata={"": (lambda v: least <= v <= most, wanted)})


# torch accepts a rate of 0, with which nothing is learned
_OPTIMIZER = {
    "lr": (lambda v: 0 < v < math.inf, "a positive number"),
    "weight_decay": (lambda v: 0 <= v < math.inf, "a number >= 0"),
}
_TRAINER = {"batch_size": (lambda v: v <= _MANY, f"at most {_MANY}")}


def _seeds_of(verb: type, config: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the seeds of a verb's samples, which some verbs must be given."""
    try:
        if config["seeds"] is not None:
            parse_seeds(config["seeds"])
        elif verb is SampleConfig:
            yield Problem("seeds", "null is not a choice of samples.", "Write for example 0-63.")
    except UsageError as error:
        yield Problem("seeds", error.problem, error.remedy or "")


def _threads_of(value: object) -> Iterator[Problem]:
    """Problems with a number of threads."""
    number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not number and value not in (AUTO, None):
        yield Problem("threads", f"{value} is out of range.", "Give auto, null or an integer >= 1.")


@dataclass
class _Model:
    """The groups that make a model and its task."""

    dataset: Any = MISSING
    autoencoder: Any = MISSING
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
    seed: int = _at_least(0, default=0, most=_SEED)
    teacher: str | None = None
    teacher_weights: str | None = None
    init: str | None = None
    init_weights: str = "raw"
    pairs: Any = None
    order: Any = MISSING
    augmentation: Any = MISSING
    coupling: Any = MISSING
    timestep: Any = MISSING
    objective: Any = MISSING
    metric: dict[str, Any] = field(default_factory=dict)
    optimizer: Any = field(default=MISSING, metadata=_OPTIMIZER)
    lr_schedule: Any = MISSING
    ema: dict[str, Any] = field(default_factory=dict)
    trainer: Any = field(default=MISSING, metadata=_TRAINER)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainFromConfig(TrainConfig):
    parent: str = MISSING


@dataclass
class TrainRunConfig(TrainConfig):
    run: str = MISSING


@dataclass
class ImportConfig(TrainConfig):
    """The keys of ``flowexp import``: the file, and the training config of its model."""

    file: str = MISSING
    name: str = MISSING
    # The value is train.yaml's, which this schema is merged onto.
    seed: int = MISSING


@dataclass
class _FromRun(_Model):
    """The keys of every verb that starts from a run."""

    run: str = MISSING
    recipe: str | None = None
    weights: str | None = None
    weight_transform: Any = MISSING
    checkpoint: str = "last"
    batch_size: int = _at_least(1, default=256)
    seeds: Any = None
    latents: Any = None
    device: str = "auto"


@dataclass
class _Sampling(_FromRun):
    """The keys of every verb that draws samples."""

    threads: Any = AUTO


@dataclass
class EvalConfig(_Sampling):
    metric: dict[str, Any] = field(default_factory=dict)
    selection: Any = None
    num_samples: int | None = _at_least(2, default=None)
    repeats: int = _at_least(1, default=1, most=1000)


@dataclass
class SampleConfig(_Sampling):
    grid: bool = True
    png: bool = False


@dataclass
class StreamConfig(_FromRun):
    frames: Any = MISSING
    residual_guidance: Any = MISSING
    similarity: Any = None
    times: list[float] = MISSING
    c_skip: list[float] | None = None
    c_out: list[float] | None = None
    add_noise: bool = True
    label: int | None = None
    seed: int = _at_least(0, default=0, most=_SEED)
    group: int = _at_least(1, default=1)
    queue_size: int = _at_least(1, default=8)
    png: bool = True


@dataclass
class PairsConfig(_Sampling):
    start: Any = MISSING
    num: int = _at_least(1, default=100000, most=10**9)
    shard_size: int = _at_least(1, default=2048)


@dataclass
class CalibrateConfig(_Sampling):
    calibration: Any = MISSING
    seed: int = _at_least(0, default=0, most=_SEED)


@dataclass
class ExportConfig(_FromRun):
    format: str = "safetensors"


@dataclass
class CompareConfig:
    runs: Any = MISSING
    format: str | None = None
    out: str | None = None


@dataclass
class PrepareConfig:
    source: str = MISSING
    out: str = MISSING
    resolution: int = _at_least(1, default=MISSING, most=_MANY)
    crop: str = "center"
    colour: str = "rgb"
    background: str = "white"
    heldout: float = field(default=0.0, metadata={"": (lambda v: 0 <= v <= 0.5, "0 to 0.5")})
    workers: int | None = _at_least(1, default=None)


@dataclass
class ReportConfig:
    runs: Any = MISSING
    out: str | None = None
    grids: int = 12


@dataclass
class _Extra:
    """Overrides of every job of one verb."""

    overrides: list[str] = field(default_factory=list)


@dataclass
class TableConfig:
    name: str | None = None
    kind: str = "table"
    budget: Any = MISSING
    launcher: Any = MISSING
    dirs: Any = MISSING
    seeds: Any = None
    only: str | None = None
    dry: Any = False
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
    TRAIN_FROM: TrainFromConfig,
    TRAIN_RUN: TrainRunConfig,
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
    "prepare": PrepareConfig,
}


def starts_from_run(config_name: str) -> bool:
    """Whether a primary config takes its options from a run."""
    needs_run = _FromRun | TrainFromConfig | TrainRunConfig
    return issubclass(_SCHEMAS.get(config_name, object), needs_run)


def trains(config_name: str) -> bool:
    """Whether a primary config is that of a training."""
    return config_name == "train" or config_name in (TRAIN_FROM, TRAIN_RUN)


def values_of_training() -> list[str]:
    """The top-level keys of a training's config that are not groups: ``seed``, ``init`` ..."""
    groups = (MISSING, dataclasses.MISSING)
    return [entry.name for entry in fields(TrainConfig) if entry.default not in groups]


def own_keys(config_name: str) -> set[str]:
    """The top-level keys and groups of a primary config."""
    schema = _SCHEMAS.get(config_name)
    return set() if schema is None else {f.name for f in fields(schema)}


def named_entries(config_name: str) -> set[str]:
    """The groups of a primary config that hold any number of named parts: callbacks, metric ..."""
    schema = _SCHEMAS.get(config_name)
    return set() if schema is None else {f.name for f in fields(schema) if f.type == _NAMED}


def out_of_range(config_name: str, config: Mapping[str, Any]) -> Iterator[Problem]:
    """Numbers of a verb's own keys that are out of their range, and entries that are no parts."""
    schema = _SCHEMAS.get(config_name)
    if schema is None:
        return
    if "seeds" in config:
        yield from _seeds_of(schema, config)
    if "threads" in config:
        yield from _threads_of(config["threads"])
    for group in named_entries(config_name):
        entries = config.get(group)
        for name, part in entries.items() if isinstance(entries, Mapping) else ():
            if part is not None and not isinstance(part, Mapping):
                key = f"{group}.{name}"
                remedy = f"Give {key}._target_=CLASS, or {key}=null to leave it out."
                yield Problem(key, f"{part!r} is not a part.", remedy)
    for entry in fields(schema):
        for name, (holds, wanted) in entry.metadata.items():
            node = config.get(entry.name)
            value = node.get(name) if isinstance(node, Mapping) else None if name else node
            if isinstance(value, int | float) and not isinstance(value, bool) and not holds(value):
                key = f"{entry.name}.{name}".rstrip(".")
                yield Problem(key, f"{value} is out of range.", f"It must be {wanted}.")


@functools.cache
def register(config_name: str) -> None:
    """Put a verb's schema, and those it extends, where primary configs find them (``base_train``).

    Each costs two milliseconds, so those of other verbs stay away.
    """
    own = _SCHEMAS.get(config_name, object)
    for name, node in _SCHEMAS.items():
        if issubclass(own, node):
            ConfigStore.instance().store(name=f"base_{name}", node=node)
