"""Metrics of generated samples, each number with its whole protocol."""

import datetime
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowexp.checkpoints.atomic import write_json
from flowexp.data import ImageArrays, quantize
from flowexp.errors import UsageError
from flowexp.evaluation.generate import GeneratedBatch, generate
from flowexp.evaluation.latents import Latents
from flowexp.evaluation.processes import Processes
from flowexp.evaluation.seeds import seeds_text
from flowexp.guidance import Guidance
from flowexp.metrics.base import Accumulator, Metric
from flowexp.metrics.protocol import MetricRecord
from flowexp.models import Model
from flowexp.samplers import Sampler
from flowexp.tasks import Task

__all__ = ["ScoreResult", "append_results", "score"]


@dataclass(frozen=True)
class ScoreResult:
    """What an evaluation measured.

    Attributes:
        records: The numbers, each with its protocol; empty on all processes but the first.
        count: Samples generated over all processes.
        nfe: Mean number of network evaluations per sample.
        seconds: Wall time of generating and scoring, without the reference statistics.
        images_per_second: Samples per second of that time, over all processes.
    """

    records: tuple[MetricRecord, ...]
    count: int
    nfe: float
    seconds: float
    images_per_second: float


def score(
    model: Model,
    *,
    metrics: Mapping[str, Metric],
    reference: ImageArrays,
    sampler: Sampler,
    seeds: Sequence[int],
    shape: Sequence[int],
    guidance: Guidance | None = None,
    task: Task | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    latents: Latents | None = None,
    heldout: ImageArrays | None = None,
    cache_dir: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    processes: Processes | None = None,
    on_batch: Callable[[GeneratedBatch], None] | None = None,
) -> ScoreResult:
    """Generate samples and measure them; every process must call this.

    Args:
        model: What predicts; see :func:`flowexp.evaluation.generate`.
        metrics: Name -> metric; checked and prepared here.
        reference: Real samples to compare with.
        sampler: How a source draw becomes a sample.
        seeds: One per sample.
        shape: Shape of a sample.
        guidance: Wraps the model, or None.
        task: Gives the conditions, or None.
        batch_size: Samples per call of the sampler and of the extractors.
        device: Where to compute.
        latents: How seeds become draws; None = flowexp's own streams.
        heldout: Real samples whose own score is put beside every number as its floor.
        cache_dir: Folder of cached reference statistics.
        facts: Fields of the protocol that the caller knows: ``precision``, ``ema``, ``sampler``.
        processes: Who shares the work.
        on_batch: Told of every batch of this process, for progress or pictures.

    Raises:
        UsageError: Weights that a metric needs are missing.
    """
    processes = processes or Processes()
    for metric in metrics.values():
        metric.check()
    _prepare(
        metrics,
        reference,
        heldout,
        processes,
        cache_dir=cache_dir,
        device=device,
        batch_size=batch_size,
    )
    accumulators = {name: metric.accumulator() for name, metric in metrics.items()}
    count, evaluations, start = 0, 0, time.perf_counter()
    for batch in generate(
        model,
        sampler=sampler,
        seeds=seeds,
        shape=shape,
        guidance=guidance,
        task=task,
        batch_size=batch_size,
        device=device,
        latents=latents,
        processes=processes,
    ):
        images = quantize(batch.x) if batch.x.ndim == 4 else batch.x
        with torch.inference_mode():
            for accumulator in accumulators.values():
                accumulator.update(images)
        count += len(batch.seeds)
        evaluations += int(batch.nfe.sum())
        if on_batch is not None:
            on_batch(batch)
    gathered = processes.gather((count, evaluations, _states(accumulators, count)))
    seconds = time.perf_counter() - start
    if gathered is None:
        return ScoreResult((), count, evaluations / max(1, count), seconds, count / seconds)
    total = sum(part[0] for part in gathered)
    nfe = sum(part[1] for part in gathered) / max(1, total)
    run = {"seeds": seeds_text(seeds), "nfe": nfe, "device": str(torch.device(device).type)}
    records = [
        record.with_run(**run, **(facts or {}))
        for name, metric in metrics.items()
        for record in _merged(metric, [part[2] for part in gathered], name).compute()
    ]
    return ScoreResult(tuple(records), total, nfe, seconds, total / seconds)


def _prepare(
    metrics: Mapping[str, Metric],
    reference: ImageArrays,
    heldout: ImageArrays | None,
    processes: Processes,
    *,
    cache_dir: Path | None,
    device: torch.device | str,
    batch_size: int,
) -> None:
    """Reference statistics; the first process fills the cache, then the others read it."""
    for turn in (True, False):
        if processes.is_first is turn:
            for metric in metrics.values():
                metric.prepare(reference, cache_dir=cache_dir, device=device, batch_size=batch_size)
                if heldout is not None and processes.is_first:
                    metric.floor(heldout)
        processes.barrier()


def _states(accumulators: Mapping[str, Accumulator], count: int) -> dict[str, dict[str, Tensor]]:
    """States to send; nothing from a process that had no batch."""
    if count == 0:
        return {}
    return {
        name: {key: tensor.cpu() for key, tensor in accumulator.state().items()}
        for name, accumulator in accumulators.items()
    }


def _merged(
    metric: Metric, states: Sequence[Mapping[str, dict[str, Tensor]]], name: str
) -> Accumulator:
    """One accumulator from the states of all processes, in the order of their ranks."""
    merged: Accumulator | None = None
    for state in states:
        if name not in state:
            continue
        accumulator = metric.accumulator()
        accumulator.load(state[name])
        if merged is None:
            merged = accumulator
        else:
            merged.merge(accumulator)
    if merged is None:
        raise UsageError("no sample was generated.", key="seeds", remedy="Name some seeds.")
    return merged


def append_results(path: Path, result: ScoreResult, **facts: Any) -> Path:  # noqa: ANN401
    """Add an evaluation to ``results.json``; earlier ones stay.

    Args:
        path: The file; made if missing.
        result: What was measured.
        **facts: Plain builtins to put beside it, for example checkpoint, sha256, overrides.

    Raises:
        UsageError: The file is there, but holds something else.
    """
    history: list[Any] = []
    if path.exists():
        try:
            history = json.loads(path.read_text())["evaluations"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} holds no results.", key="run", remedy="Move the file away."
            ) from error
    entry = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **facts,
        "count": result.count,
        "nfe": result.nfe,
        "seconds": result.seconds,
        "images_per_second": result.images_per_second,
        "records": [{"key": record.key, **record.to_dict()} for record in result.records],
    }
    return write_json(path, {"evaluations": [*history, entry]})
