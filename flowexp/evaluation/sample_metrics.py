"""The metrics of generated samples within an evaluation: prepared, updated and merged."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from flowexp.data import ImageArrays, quantize
from flowexp.errors import UsageError
from flowexp.metrics.base import Accumulator, Metric
from flowexp.metrics.protocol import MetricRecord
from flowexp.metrics.torchmetrics_metric import TorchmetricsMetric
from flowexp.pipeline import Processes, SampleBatch
from flowexp.tasks import Task

if TYPE_CHECKING:
    import torchmetrics

__all__ = ["SampleMetrics"]


class SampleMetrics:
    """Metrics of samples, ours or torchmetrics', and their states over this process's samples."""

    def __init__(
        self, metrics: "Mapping[str, Metric | torchmetrics.Metric]", processes: Processes
    ) -> None:
        self.metrics: dict[str, Metric] = {
            # of all metrics only torchmetrics' are modules
            name: TorchmetricsMetric(metric, name=name, sees_reference=processes.is_first)
            if isinstance(metric, nn.Module)
            else metric
            for name, metric in metrics.items()
        }
        self.processes = processes
        self._accumulators: dict[str, Accumulator] = {}
        self._count = 0

    def check(self, task: Task | None, *, seeds: Sequence[int]) -> None:
        """Refuse what cannot be measured, before sampling.

        Raises:
            UsageError: A metric's weights are missing, it needs more samples, or it compares with
                targets and the task has none.
        """
        for name, metric in self.metrics.items():
            metric.check()
            least = metric.minimum_samples
            if len(seeds) < least:
                problem = (
                    f"{name} needs at least {least} samples, but there are {len(seeds)} seeds."
                )
                remedy = f"Set num_samples={least} or more, or take another metric."
                raise UsageError(problem, key="num_samples", remedy=remedy)
            if metric.paired and (task is None or task.targets(seeds[:1]) is None):
                which = "no task" if task is None else type(task).__name__
                problem = f"{name} compares each sample with a target, and {which} has none."
                remedy = "Take a task with targets (a restoration task), or another metric."
                raise UsageError(problem, key=f"metric.{name}", remedy=remedy)

    def prepare(
        self,
        reference: ImageArrays,
        heldout: ImageArrays | None,
        *,
        cache_dir: Path | None,
        device: torch.device | str,
        batch_size: int,
    ) -> None:
        """Reference statistics; the first process fills the cache, then the others read it.

        For the arguments see :func:`~flowexp.evaluation.score`; extractors run on ``device``.
        """
        for turn in (True, False):
            if self.processes.is_first is turn:
                for metric in self.metrics.values():
                    metric.prepare(
                        reference, cache_dir=cache_dir, device=device, batch_size=batch_size
                    )
                    if heldout is not None and turn and not metric.paired:
                        metric.floor(heldout)
            self.processes.barrier()
        self._accumulators = {name: m.accumulator() for name, m in self.metrics.items()}

    def update(self, batch: SampleBatch) -> None:
        """Add a batch of samples to every metric, with the targets to paired ones."""
        self._count += len(batch.seeds)
        with torch.inference_mode():
            images = [_levels(x) for x in (batch.x, batch.targets) if x is not None]
            for name, accumulator in self._accumulators.items():
                accumulator.update(*images if self.metrics[name].paired else images[:1])

    def records(self) -> dict[str, tuple[MetricRecord, ...]]:
        """The numbers of every metric on the first process, () each elsewhere; all must call this.

        Without any sample it raises ``UsageError``.
        """
        # a process without a batch has nothing to send
        own = {
            name: {key: tensor.cpu() for key, tensor in accumulator.state().items()}
            for name, accumulator in self._accumulators.items()
            if self._count
        }
        gathered = self.processes.gather(own)
        if gathered is None:
            return dict.fromkeys(self.metrics, ())
        return {
            name: _merged(metric, [state[name] for state in gathered if name in state]).compute()
            for name, metric in self.metrics.items()
        }


def _levels(x: Tensor) -> Tensor:
    """Images as 8-bit levels; points as they are."""
    return quantize(x) if x.ndim == 4 and x.is_floating_point() else x


def _merged(metric: Metric, states: Sequence[dict[str, Tensor]]) -> Accumulator:
    """One accumulator from the states of all processes, in the order of their ranks."""
    if not states:
        raise UsageError("no sample was generated.", key="seeds", remedy="Give some seeds.")
    accumulators = [metric.accumulator() for _ in states]
    for accumulator, state in zip(accumulators, states, strict=True):
        accumulator.load(state)
    for other in accumulators[1:]:
        accumulators[0].merge(other)
    return accumulators[0]
