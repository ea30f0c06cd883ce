"""The protocol of metrics of the model."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from flowexp.data import ImageArrays
from flowexp.metrics.protocol import MetricRecord, Protocol
from flowexp.models import Model
from flowexp.pipeline import Pipeline, Processes, in_turn
from flowexp.progress import counted
from flowexp.requirements import Part
from flowexp.samplers.adaptive import IntegrationError

__all__ = ["ModelMetric", "Setting", "records_of", "NetworkEvaluations"]

_LOG = logging.getLogger(__name__)
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
    nfe: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def per_item(
        self,
        items: Sequence[_Item],
        values: Callable[[list[_Item]], Mapping[str, Tensor]],
        *,
        names: Sequence[str] = (),
        what: str = "measured",
    ) -> dict[str, Tensor] | None:
        """Values of every item, (n,) float64 each, on the first process; None elsewhere.

        They are computed by all processes together, each (B,) of a batch of items; every process
        must call this. Batches hold the same items for every number of processes, and the values
        come back in the order of the items, so that a mean does not depend on that number.

        With the ``names`` of the values, those of an item at which an adaptive solver fails are
        nan; without, its error is raised. ``what`` is measured, in words of progress.
        """
        size = self.pipeline.batch_size
        batches = [list(items[i : i + size]) for i in range(0, len(items), size)]
        own = []
        with counted(what, total=len(items), unit="samples") as task:
            for batch in self.processes.share(batches):
                found = _values(values, batch, names)
                own.append({name: v.detach().to("cpu", torch.float64) for name, v in found.items()})
                task.advance(len(batch) * self.processes.world_size)
        gathered = self.processes.gather(own)
        if gathered is None:
            return None
        ordered = in_turn(gathered)
        return {name: torch.cat([batch[name] for batch in ordered]) for name in ordered[0]}


def _values(
    values: Callable[[list[_Item]], Mapping[str, Tensor]], batch: list[_Item], names: Sequence[str]
) -> Mapping[str, Tensor]:
    """The values of a batch; if its solver fails, those of its halves, down to single items."""
    try:
        return values(batch)
    except IntegrationError as error:
        if not names:
            raise
        if len(batch) == 1:
            _LOG.warning("no value for %s: %s", batch[0], error)
            return {name: torch.full((1,), math.nan) for name in names}
    middle = len(batch) // 2
    halves = [_values(values, part, names) for part in (batch[:middle], batch[middle:])]
    return {name: torch.cat([half[name].cpu() for half in halves]) for name in names}


class ModelMetric(Part, ABC):
    """A metric of the model itself, under the guidance and conditions of an evaluation.

    Its name is the stem of its key, for example ``straightness``. Less of it is better, unless
    ``higher_is_better`` says otherwise. ``follows_velocity`` says whether it needs the model's
    velocity, which consistency models do not have.
    """

    name: str
    higher_is_better: bool | None = False
    follows_velocity: bool = True

    def check(self) -> None:
        """Raise ``UsageError`` when something needed is missing on this computer."""
        return

    def check_setting(self, model: Model, *, setting: Setting) -> None:
        """Raise ``UsageError`` when it is not defined here; to be called before sampling."""
        return

    @abstractmethod
    def measure(self, model: Model, *, setting: Setting) -> tuple[MetricRecord, ...]:
        """The numbers, each with its protocol, on the first process; () elsewhere.

        Every process must call this, after sampling. A field of the protocol that is left None is
        filled with that of the evaluation. The model is the one evaluated, guidance included.
        """


def records_of(
    name: str,
    found: Mapping[str, Tensor] | None,
    *,
    metric: str,
    how: str,
    data: ImageArrays,
    quantization: str = "none",
    sampler: str | None = None,
    nfe: float | None = None,
) -> tuple[MetricRecord, ...]:
    """The mean of independent values with its standard error and protocol.

    If one of them is not finite, the number is nan, with the count of those as its reason.

    Args:
        name: The metric's name.
        found: ``value``, (n,), one per independent sample or image, and what is shown beside its
            mean, by its own mean; None on all processes but the first, which give no record.
        metric: What is computed, with its unit.
        how: By which method; what must be equal for two numbers to be comparable.
        data: The data set that the number is about.
        quantization: How data became the model's input.
        sampler: Solver that was used; None = the evaluation's.
        nfe: Its network evaluations per sample; None = the evaluation's.
    """
    if found is None:
        return ()
    means = {part: float(values.mean()) for part, values in found.items()}
    value, values = means.pop("value"), found["value"]
    lost = int((~values.isfinite()).sum())
    protocol = Protocol.against(
        data,
        metric=metric,
        extractor=how,
        weights_sha256=None,
        resize="none",
        quantization=quantization,
        n_ref=None,
        sampler=sampler,
        nfe=nfe,
    )
    protocol = replace(protocol, n_gen=len(values))
    if lost:
        reason = f"{lost} of {len(values)} values are not finite"
        return (MetricRecord(name=name, value=math.nan, protocol=protocol, reason=reason),)
    error = {"standard_error": float(values.std() / len(values) ** 0.5)} if len(values) > 1 else {}
    return (MetricRecord(name=name, value=value, protocol=protocol, extra={**error, **means}),)


class NetworkEvaluations(ModelMetric):
    """Network evaluations per generated sample: mean, and beside it minimum and maximum.

    They were counted while the samples were generated, not computed from a formula. Guidance that
    evaluates two networks per call counts twice.
    """

    name = "nfe"
    follows_velocity = False

    def measure(self, model: Model, *, setting: Setting) -> tuple[MetricRecord, ...]:
        if not len(setting.nfe):  # only the first process knows all counts
            return ()
        counts = setting.nfe.to(torch.float64)
        return records_of(
            self.name,
            {"value": counts, "minimum": counts.min(), "maximum": counts.max()},
            metric="NFE",
            how=type(setting.pipeline.sampler).__name__,
            data=setting.reference,
        )
