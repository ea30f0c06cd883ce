"""What a metric of the model is given, and what it answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from flowexp.data import ImageArrays
from flowexp.metrics.protocol import MetricRecord, Protocol
from flowexp.models import Model
from flowexp.pipeline import Pipeline, Processes, in_turn
from flowexp.requirements import Part

__all__ = ["ModelMetric", "Setting", "record_of"]

_Item = TypeVar("_Item")


@dataclass(frozen=True, eq=False, kw_only=True)
class Setting:
    """The evaluation that a metric of the model is part of.

    Attributes:
        pipeline: What is evaluated.
        seeds: One per generated sample.
        reference: Real samples the model may have been trained on.
        heldout: Real samples it was not trained on, or None.
        processes: The processes that share the work.
        nfe: Network evaluations of each sample that was generated, (n,) int64 in the order of the
            seeds; empty before sampling, and on all processes but the first.
    """

    pipeline: Pipeline
    seeds: Sequence[int]
    reference: ImageArrays
    heldout: ImageArrays | None
    processes: Processes
    nfe: Tensor

    def per_item(
        self, items: Sequence[_Item], values: Callable[[list[_Item]], Mapping[str, Tensor]]
    ) -> dict[str, Tensor] | None:
        """Values of every item, computed by all processes together; every process must call this.

        Batches hold the same items for every number of processes, and the values come back in the
        order of the items: a mean over them does not even depend on who computed them.

        Args:
            items: What to compute values of, each exactly once.
            values: The values of a batch of items, each (B,).

        Returns:
            Each value as (n,), float64, on the first process; None elsewhere.
        """
        size = self.pipeline.batch_size
        batches = [list(items[i : i + size]) for i in range(0, len(items), size)]
        own = []
        for batch in self.processes.share(batches):
            found = values(batch)
            own.append({name: v.detach().to("cpu", torch.float64) for name, v in found.items()})
        gathered = self.processes.gather(own)
        if gathered is None:
            return None
        ordered = in_turn(gathered)
        return {name: torch.cat([batch[name] for batch in ordered]) for name in ordered[0]}


class ModelMetric(Part, ABC):
    """A metric that asks the model itself, under the guidance and conditions of an evaluation.

    Attributes:
        name: Stem of the metric's key, for example ``straightness``.
    """

    name: str

    def check(self) -> None:
        """Raise ``UsageError`` when something needed is missing on this computer; nothing is."""
        return

    def check_setting(self, model: Model, *, setting: Setting) -> None:
        """Raise ``UsageError`` when it is not defined here; to be called before sampling.

        Args:
            model: The pipeline's model, guidance included.
            setting: The evaluation.
        """
        return

    @abstractmethod
    def measure(self, model: Model, *, setting: Setting) -> tuple[MetricRecord, ...]:
        """The numbers, each with its protocol; every process must call this, after sampling.

        A field of the protocol that is left None is filled with that of the evaluation.

        Args:
            model: The model as it is evaluated, guidance included.
            setting: The evaluation.

        Returns:
            The records, on the first process; () elsewhere.
        """


def record_of(
    name: str,
    values: Tensor,
    *,
    metric: str,
    how: str,
    data: ImageArrays,
    count: int,
    extra: Mapping[str, float],
    quantization: str = "none",
    sampler: str | None = None,
    nfe: float | None = None,
) -> MetricRecord:
    """The mean of independent values with its standard error and protocol.

    Args:
        name: The metric's name.
        values: (n,), one per independent sample.
        metric: What is computed, with its unit.
        how: By which method; what must be equal for two numbers to be comparable.
        data: The data set that the number is about.
        count: Number of samples or images.
        extra: Numbers that belong beside it.
        quantization: How data became the model's input.
        sampler: Solver that was used; None = the evaluation's.
        nfe: Its network evaluations per sample; None = the evaluation's.
    """
    reference, _, split = data.name.partition("/")
    protocol = Protocol(
        metric=metric,
        extractor=how,
        weights_sha256=None,
        resize="none",
        quantization=quantization,
        reference=reference,
        reference_fingerprint=data.fingerprint,
        reference_split=split or None,
        n_ref=None,
        n_gen=count,
        sampler=sampler,
        nfe=nfe,
        notice=data.notice,
    )
    beside = dict(extra)
    if len(values) > 1:
        beside = {"standard_error": float(values.std() / len(values) ** 0.5), **beside}
    return MetricRecord(name=name, value=float(values.mean()), protocol=protocol, extra=beside)
