"""Short trials that time trainings and sampling on this machine.

They need no data, teachers or trained weights: they run on random data and new weights.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowexp.config.check import check_job
from flowexp.config.instantiate import instantiate
from flowexp.config.trust import USER
from flowexp.data import DataBatch, ImageArrays
from flowexp.errors import UsageError
from flowexp.evaluation import score
from flowexp.pipeline import Pipeline
from flowexp.pipeline.threads import single_calls
from flowexp.runs.assemble import Built, build, resolve_device
from flowexp.threads import given_threads, measure, restored, usable_cores
from flowexp.training import training_parts
from flowexp.training.fit import prepare_network
from flowexp.training.timed_passes import fitting, seconds_of, steps_on

__all__ = ["STEPS", "Trial", "try_sampling", "try_training"]

STEPS = 20
"""Steps of a trial, if they fit into a few seconds."""

_MOST_SECONDS = 3.0
_PIECE_SECONDS = 0.3
_CALLS = 8
_SIZES = (8, 24)
_REFERENCE = 64

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """Seconds per image (trained on, or sampled and scored), the device, and costs left out."""

    seconds: float
    where: str
    without: str = ""


def try_training(config: Config) -> Trial:
    """Time up to 20 steps of a training, or a part of the first step if it is long."""
    with restored(), torch.random.fork_rng(devices=[]):
        built = build(config, by=USER)
        settings = config["trainer"]
        size = settings["micro_batch"] or settings["batch_size"]
        device = "cpu" if settings["accelerator"] == "cpu" else resolve_device("auto")
        batch = _random_batch(built, size).to(device)
        built.network.to(device)
        try:
            parts = training_parts(config, built, by=USER)
            prepare_network(parts.model.network, parts.settings)
            without, work = "", steps_on(batch, parts)
        except (UsageError, ValueError, OSError) as error:  # a teacher, or weights of a loss
            without, work = f"the objective ({_reason(error)})", _bare_steps(built, batch)
        first, piece = fitting(work, most=size, seconds=_PIECE_SECONDS)
        where = _where(device, partial(work, piece), partial(work, first))
        count, spent = 0, 0.0
        while count < STEPS and spent < _MOST_SECONDS:
            spent += seconds_of(work, piece)
            count += 1
        return Trial(spent / count / piece, where, without)


def _bare_steps(built: Built, batch: DataBatch) -> Callable[[int], None]:
    """Passes through the network only."""
    pipeline = built.pipeline.replace(device=batch.images.device)
    middle = sum(pipeline.model.time_range) / 2
    t = torch.tensor(middle, dtype=torch.float64, device=pipeline.device)

    def work(size: int) -> None:
        conditions = pipeline.start(range(size)).conditions
        loss = built.model.velocity(batch.images[:size], t, **conditions).square().mean()
        torch.autograd.backward(loss)

    return work


def try_sampling(config: Config, *, metrics: bool) -> Trial:
    """Time the network evaluations of a sample, and with ``metrics`` its scoring.

    Their number is counted by sampling with a network that returns zeros; for an adaptive sampler
    it is the number for a straight trajectory.
    """
    with restored(), torch.random.fork_rng(devices=[]), torch.inference_mode():
        built, without = _built_to_sample(config)
        device = resolve_device(str(config.get("device") or "auto"))
        built.network.to(device).eval()
        most = min(int(config.get("batch_size") or 64), max(_SIZES))
        pipeline = built.pipeline.replace(batch_size=most, device=device)
        call, calls = single_calls(pipeline), pipeline.model.evaluations_per_call
        first, piece = fitting(call, most=most, seconds=_PIECE_SECONDS)
        where = _where(device, partial(call, piece), partial(call, first))
        of_call = min(seconds_of(call, piece) for _ in range(3)) / piece / max(1, calls)
        chosen = None
        if metrics:
            try:
                chosen = instantiate(config["metric"], key="metric", by=USER)
                rest, evaluations = _around(pipeline, built.network, chosen)
            except (UsageError, ValueError, OSError) as error:
                without, chosen = f"the metric ({_reason(error)})", None
        if chosen is None:
            rest, evaluations = _around(pipeline, built.network, None)
        return Trial(rest + evaluations * of_call, where, without)


def _around(
    pipeline: Pipeline, network: nn.Module, metrics: Mapping[str, Any] | None
) -> tuple[float, float]:
    """Seconds per sample outside the network, and network evaluations per sample."""
    arrays = _random_arrays(pipeline)
    counted = _Counted(network)
    network.forward = counted  # the pipeline is not used again
    found = []
    for size in _SIZES:
        counted.samples, started = 0, time.perf_counter()
        if metrics is None:
            for _ in pipeline.batches(range(size)):
                pass
        else:
            score(pipeline, metrics=metrics, seeds=range(size), reference=arrays)
        found.append((time.perf_counter() - started, counted.samples))
    (before, some), (after, more) = found
    extra = _SIZES[1] - _SIZES[0]
    return max(0.0, after - before) / extra, (more - some) / extra


class _Counted:
    """A forward that counts samples and returns zeros, after a first call that sets their shape."""

    def __init__(self, network: nn.Module) -> None:
        self.samples = 0
        self._forward = network.forward
        self._shape: tuple[int, ...] | None = None

    def __call__(self, x: Tensor, *args: Any, **conditions: Any) -> Any:  # noqa: ANN401
        self.samples += len(x)
        if self._shape is None:
            output = self._forward(x, *args, **conditions)
            if not isinstance(output, Tensor):
                return output
            self._shape = output.shape[1:]
        return x.new_zeros((len(x), *self._shape))


def _built_to_sample(config: Config) -> tuple[Built, str]:
    """The parts for sampling; Euler's method replaces a sampler without its calibration."""
    try:
        return build(config, by=USER), ""
    except UsageError:
        steps = int(config["sampler"].get("steps", 10))
        euler = check_job("train", ["sampler=euler", f"sampler.steps={steps}"]).config["sampler"]
        return build({**config, "sampler": euler}, by=USER), "the sampler's calibration"


def _where(device: str, work: Callable[[], object], first: Callable[[], object]) -> str:
    """The device in words, on the CPU with the number of threads that ``auto`` would choose."""
    if device != "cpu":
        return device
    given = given_threads()
    if given is not None:
        torch.set_num_threads(given[0])
    else:
        torch.set_num_threads(1 if usable_cores() == 1 else measure(work, first=first).best)
    count = torch.get_num_threads()
    return f"{count} CPU thread{'s' if count > 1 else ''}"


def _random_batch(built: Built, size: int) -> DataBatch:
    classes = built.dataset.num_classes
    rng = torch.Generator().manual_seed(0)
    x = torch.randn((size, *built.pipeline.shape), generator=rng).clamp(-1, 1)
    labels = torch.randint(classes, (size,), generator=rng) if classes else None
    return DataBatch(x, labels, torch.arange(size), partner=torch.randn(x.shape, generator=rng))


def _random_arrays(pipeline: Pipeline) -> ImageArrays:
    rng = np.random.default_rng(0)
    encoded, data = pipeline.autoencoder.encodes, pipeline.dataset
    of_one = data.shape if encoded and data is not None else pipeline.shape
    shape, classes = (_REFERENCE, *of_one), pipeline.task.num_classes
    images = (
        rng.integers(0, 256, shape, dtype=np.uint8)
        if len(shape) == 4
        else rng.standard_normal(shape, dtype=np.float32)
    )
    labels = np.arange(_REFERENCE) % classes if classes else None
    return ImageArrays.of(images, labels, num_classes=classes, name="random")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".")
