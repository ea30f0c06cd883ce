"""Samples as functions of their seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.evaluation.latents import FlowexpLatents, Latents
from flowexp.evaluation.processes import Processes
from flowexp.guidance import Guidance
from flowexp.models import Model
from flowexp.samplers import Sampler
from flowexp.tasks import Task

__all__ = ["GeneratedBatch", "generate"]


@dataclass(frozen=True, eq=False)
class GeneratedBatch:
    """Some samples.

    Attributes:
        seeds: One per sample.
        x: Samples, (B, ...), float32, on the device they were generated on.
        nfe: Network evaluations per sample, (B,), int64.
        conditions: What they were conditioned on, e.g. ``labels`` (B,).
    """

    seeds: list[int]
    x: Tensor
    nfe: Tensor
    conditions: dict[str, Tensor | None]


def generate(
    model: Model,
    *,
    sampler: Sampler,
    seeds: Sequence[int],
    shape: Sequence[int],
    guidance: Guidance | None = None,
    task: Task | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    latents: Latents | None = None,
    processes: Processes | None = None,
) -> Iterator[GeneratedBatch]:
    """Samples in batches; with several processes, this process's batches.

    Latents, labels and noise belong to the seed of a sample: they are the same for every batch size
    and number of processes. Batches hold the same seeds for every number of processes, so that
    sharing the work does not even change the rounding.

    Args:
        model: What predicts; its network should be in evaluation mode and on ``device``.
        sampler: How a source draw becomes a sample.
        seeds: One per sample.
        shape: Shape of a sample, (C, H, W) or (D,).
        guidance: Wraps the model, or None.
        task: Gives the conditions, or None for none.
        batch_size: Samples per call of the sampler, >= 1.
        device: Where to compute.
        latents: How seeds become draws; None = flowexp's own streams.
        processes: Who shares the work, or None for this process alone.

    Raises:
        ValueError: batch_size < 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; allowed: integers >= 1")
    rule = FlowexpLatents() if latents is None else latents
    guided = model if guidance is None else guidance.wrap(model)
    batches = [list(seeds[i : i + batch_size]) for i in range(0, len(seeds), batch_size)]
    for batch in (processes or Processes()).share(batches):
        with torch.inference_mode():
            draws = rule.draw(
                batch,
                shape=shape,
                source=model.path.source,
                num_classes=0 if task is None else task.num_classes,
                device=device,
            )
            conditions = (
                {} if task is None else task.conditions(batch, labels=draws.labels, device=device)
            )
            samples = sampler.sample(guided, draws.e, noise=draws.noise, on_step=None, **conditions)
        yield GeneratedBatch(batch, samples.x.float(), samples.nfe.cpu(), conditions)
