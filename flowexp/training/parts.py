"""Everything a training is made of, typed; and the place that builds it from a config."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pytorch_lightning import Callback
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.optim import Optimizer

from flowexp.augmentations import Augmentation
from flowexp.config.instantiate import instantiate
from flowexp.config.trust import STRANGER, Author
from flowexp.couplings import Coupling
from flowexp.data import Dataset, ImageArrays, Order, RandomEpochs
from flowexp.errors import UsageError
from flowexp.models import FlowModel
from flowexp.networks.attention_features import attention_values
from flowexp.objectives import Objective
from flowexp.pipeline import Pipeline
from flowexp.runs.assemble import Built, known, part_of, require_fit
from flowexp.runs.going_on import steps_for
from flowexp.timesteps import TimeLaw
from flowexp.training.ema import EMA
from flowexp.training.lr_schedules import LRSchedule

__all__ = ["PRECISIONS", "TrainerSettings", "TrainingParts", "described", "training_parts"]

PRECISIONS = ("32-true", "tf32", "bf16-mixed", "16-mixed")


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Length, batch, numerics and devices of a training.

    Lengths count images, in thousands (kimg), so that they mean the same for every batch size.

    Args:
        max_kimg: Thousands of images to train on.
        batch_size: Images per optimizer step over all devices.
        micro_batch: Images per forward pass and device; None = all at once. Smaller ones need less
            memory and give the same gradient.
        precision: ``32-true``; ``tf32`` (float32 with TF32 matrix products, CUDA); ``bf16-mixed``
            or ``16-mixed`` (the network only: paths, times, losses and weights are not lowered).
        compile: Whether the network is compiled.
        channels_last: Memory layout of convolution weights; None = channels last where there are
            convolutions.
        grad_clip: Largest norm of the gradient, or None.
        nan_to_num: Whether gradients that are not finite are replaced (nan by 0, infinities by 1e5)
            as in EDM's code; otherwise a loss that is not finite stops the run.
        accelerator: ``auto``, ``cpu``, ``cuda`` or another of Lightning's.
        devices: How many devices per node, or which, or ``auto``.
        num_nodes: Number of nodes.
        strategy: Lightning's strategy, for example ``auto`` or ``ddp``.
        log_every: Optimizer steps between logged rows, each a mean over them.
        checkpoint_kimg: Thousands of images between checkpoints; None = only at the end.
        keep_checkpoints: How many numbered checkpoints are kept besides the last; None = all.
        snapshot_kimg: Thousands of images between snapshots, which hold the averages only (4 bytes
            a parameter each) and are never removed; None = none. There is one at every multiple
            that is reached, for ``flowexp eval selection=best_of_snapshots``.
        threads: CPU threads: a number, ``auto`` = the fastest in a measurement before the first
            step, or None = as PyTorch decides. It is recorded in the run, which keeps it.

    Raises:
        ValueError: A value is out of range.
    """

    later_options: ClassVar[Mapping[str, object]] = {"snapshot_kimg": None, "threads": None}

    max_kimg: float
    batch_size: int
    micro_batch: int | None = None
    precision: str = "32-true"
    compile: bool = False
    channels_last: bool | None = None
    grad_clip: float | None = None
    nan_to_num: bool = False
    accelerator: str = "auto"
    devices: int | str | Sequence[int] = 1
    num_nodes: int = 1
    strategy: str = "auto"
    log_every: int = 50
    checkpoint_kimg: float | None = None
    keep_checkpoints: int | None = 1
    snapshot_kimg: float | None = None
    threads: int | str | None = None

    def __post_init__(self) -> None:
        finite = 0 < self.max_kimg < math.inf
        _require("max_kimg", self.max_kimg, "a finite positive number", finite)
        for name in ("batch_size", "num_nodes", "log_every"):
            value = getattr(self, name)
            _require(name, value, "an integer >= 1", value >= 1)
        micro = self.micro_batch
        fits = micro is None or 1 <= micro <= self.batch_size
        most = f"null, or an integer from 1 to trainer.batch_size={self.batch_size}"
        _require("micro_batch", micro, most, fits)
        allowed = ", ".join(PRECISIONS)
        _require("precision", self.precision, f"one of {allowed}", self.precision in PRECISIONS)
        named = self.devices if isinstance(self.devices, str) else "auto"
        numbers = named == "auto" or all(part.strip("- ").isdecimal() for part in named.split(","))
        _require("devices", named, "auto, a number of devices, or numbers such as 0,2", numbers)
        for name in ("grad_clip", "checkpoint_kimg", "snapshot_kimg"):
            value = getattr(self, name)
            _require(name, value, "a positive number or null", value is None or value > 0)
        kimg = self.checkpoint_kimg
        finite = kimg is None or kimg < math.inf
        _require("checkpoint_kimg", kimg, "a finite positive number or null", finite)
        keep = self.keep_checkpoints
        _require("keep_checkpoints", keep, "an integer >= 0 or null", keep is None or keep >= 0)
        threads = self.threads
        known = threads >= 1 if isinstance(threads, int) else threads in ("auto", None)
        _require("threads", threads, "auto, an integer >= 1, or null", known)

    @property
    def total_steps(self) -> int:
        """Optimizer steps until at least ``max_kimg`` have been seen."""
        return steps_for(self.max_kimg, self.batch_size)

    @property
    def checkpoint_steps(self) -> int | None:
        """Optimizer steps between checkpoints, or None."""
        if self.checkpoint_kimg is None:
            return None
        return steps_for(self.checkpoint_kimg, self.batch_size)

    def snapshots_after(self, step: int) -> int:
        """How many multiples of ``snapshot_kimg`` have been reached after ``step`` steps.

        Counted in images, so that snapshots do not drift where a batch does not divide their span.
        """
        if self.snapshot_kimg is None:
            return 0
        return int(step * self.batch_size // round(self.snapshot_kimg * 1000.0, 6))

    def share(self, world_size: int, *, group: int = 1) -> int:
        """Images per step and process, in groups of ``group``.

        Raises:
            UsageError: The batch cannot be shared equally, or not without dividing a group.
        """
        if self.batch_size % (world_size * group):
            whole = "" if group == 1 else f" in groups of {group}"
            raise UsageError(
                f"{self.batch_size} images cannot be shared equally by {world_size} processes"
                f"{whole}.",
                key="trainer.batch_size",
                remedy=f"Choose a multiple of {world_size * group}.",
            )
        return self.batch_size // world_size


def _require(name: str, value: object, allowed: str, holds: bool) -> None:
    if not holds:
        raise ValueError(f"trainer.{name} is {value!r}; allowed: {allowed}")


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingParts:
    """What is trained and how.

    Attributes:
        model: Path, network and parameterization; the network is trained in place.
        dataset: The data in the space of the flow: of an autoencoder, the latents.
        optimizer: Makes the optimizer from the parameters.
        augmentation: Change of the images that the network is conditioned on; None = none.
        pipeline: The guided model with its sampler, for callbacks that sample; None = no sampling.
        order: In which order the data come.
    """

    model: FlowModel
    dataset: Dataset
    coupling: Coupling
    timestep: TimeLaw
    objective: Objective
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    lr_schedule: LRSchedule
    emas: Mapping[str, EMA]
    settings: TrainerSettings
    order: Order = field(default_factory=RandomEpochs)
    augmentation: Augmentation | None = None
    pipeline: Pipeline | None = None
    callbacks: Mapping[str, Callback] = field(default_factory=dict)
    loggers: Mapping[str, Logger] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_kind(self.callbacks, Callback, "callbacks", "pytorch_lightning.Callback")
        _require_kind(self.loggers, Logger, "logger", "pytorch_lightning.loggers.Logger")

    @property
    def group(self) -> int:
        """Number of consecutive rows of a batch that must stay together."""
        return math.lcm(self.objective.group, self.order.length)

    def mirrors(self, arrays: ImageArrays) -> bool:
        """Whether items of these arrays are mirrored at random.

        A mirrored latent is not the latent of the mirrored image, so that one has to be there.
        """
        latents = self.pipeline is not None and self.pipeline.autoencoder.encodes
        return self.dataset.hflip and (not latents or arrays.posteriors is not None)


def training_parts(
    config: Mapping[str, Any], built: Built, *, by: Author = STRANGER
) -> TrainingParts:
    """Build the rest of a training from its plain, resolved config; refuse what does not fit.

    Raises:
        UsageError: A part refused its values, is none that ``by`` may name, needs another part than
            was chosen, or misses a file.
    """
    settings = instantiate(config["trainer"], key="trainer", by=by)
    names = ("augmentation", "coupling", "timestep", "objective")
    chosen = {name: part_of(config, name, by=by) for name in names}
    chosen["order"] = part_of(config, "order", by=by) if config.get("order") else RandomEpochs()
    model = built.model
    others = {"dataset": built.dataset, "autoencoder": built.autoencoder, "trainer": settings,
              "pairs": config.get("pairs")}  # fmt: skip
    emas = _entries(config, "ema", by)
    facts = known({**others, "ema": emas, **chosen}, model)
    require_fit({**chosen, "parameterization": model.parameterization}, facts)
    chosen["objective"].check()
    return TrainingParts(
        model=model,
        dataset=built.flow_data,
        pipeline=built.pipeline,
        settings=settings,
        **chosen,
        optimizer=instantiate(config["optimizer"], key="optimizer", by=by),
        lr_schedule=instantiate(config["lr_schedule"], key="lr_schedule", by=by),
        emas=emas,
        callbacks=_entries(config, "callbacks", by),
        loggers=_entries(config, "logger", by),
    )


def described(parts: TrainingParts) -> list[tuple[str, str]]:
    """What follows from the parts together, as rows of a table."""
    attending = attention_values(parts.model.network)
    if not (parts.objective.forward_mode and attending):
        return []
    return [("attention", "math kernel in derivatives, as forward mode needs")]


def _entries(config: Mapping[str, Any], group: str, by: Author) -> dict[str, Any]:
    """The named entries of a group, without those that are switched off by null."""
    entries = instantiate(config[group], key=group, by=by)
    return {name: entry for name, entry in entries.items() if entry is not None}


def _require_kind(entries: Mapping[str, object], kind: type, group: str, name: str) -> None:
    for key, entry in entries.items():
        if not isinstance(entry, kind):
            raise UsageError(
                f"{type(entry).__name__} is not a {name}.",
                key=f"{group}.{key}",
                remedy=f"Derive it from {name}.",
            )
