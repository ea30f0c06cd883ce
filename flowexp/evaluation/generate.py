"""Samples as functions of their seeds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.diagnostics import Start
from flowexp.evaluation.latents import FlowexpLatents, Latents
from flowexp.evaluation.processes import Processes
from flowexp.guidance import Guidance
from flowexp.models import Model
from flowexp.samplers import Sampler
from flowexp.tasks import Task

__all__ = ["GeneratedBatch", "generate", "starts"]


@dataclass(frozen=True, eq=False)
class GeneratedBatch:
    """Some samples.

    Attributes:
        seeds: One per sample.
        x: Samples, (B, ...), float32, on the device they were generated on.
        nfe: Network evaluations per sample, (B,), int64.
        conditions: What they were conditioned on, e.g. ``labels`` (B,).
        targets: What they should be, (B, C, H, W), uint8 or floating in [-1, 1]; None where the
            task has no right answer.
    """

    seeds: list[int]
    x: Tensor
    nfe: Tensor
    conditions: dict[str, Tensor | None]
    targets: Tensor | None = None


def starts(
    model: Model,
    *,
    shape: Sequence[int],
    task: Task | None = None,
    latents: Latents | None = None,
    device: torch.device | str = "cpu",
) -> Callable[[Sequence[int]], Start]:
    """The rule by which seeds become what a sampler starts from; row j depends on ``seeds[j]``.

    Args:
        model: Its path's source is drawn from.
        shape: Shape of a sample, (C, H, W) or (D,).
        task: Gives the conditions, or None for none.
        latents: How seeds become draws; None = flowexp's own streams.
        device: Where to compute.
    """
    rule = FlowexpLatents() if latents is None else latents

    def start(seeds: Sequence[int]) -> Start:
        draws = rule.draw(
            seeds,
            shape=shape,
            source=model.path.source,
            num_classes=0 if task is None else task.num_classes,
            device=device,
        )
        conditions = (
            {} if task is None else task.conditions(seeds, labels=draws.labels, device=device)
        )
        return Start(draws.e, draws.noise, conditions)

    return start


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
    guided = model if guidance is None else guidance.wrap(model)
    start_of = starts(guided, shape=shape, task=task, latents=latents, device=device)
    batches = [list(seeds[i : i + batch_size]) for i in range(0, len(seeds), batch_size)]
    for batch in (processes or Processes()).share(batches):
        with torch.inference_mode():
            start = start_of(batch)
            samples = sampler.sample(
                guided, start.e, noise=start.noise, on_step=None, **start.conditions
            )
            targets = None if task is None else task.targets(batch, device=device)
        yield GeneratedBatch(batch, samples.x.float(), samples.nfe.cpu(), start.conditions, targets)
