"""The cost of a sample as a record of its own."""

import torch

from flowexp.diagnostics.base import ModelMetric, Setting, record_of
from flowexp.metrics.protocol import MetricRecord
from flowexp.models import Model

__all__ = ["NetworkEvaluations"]


class NetworkEvaluations(ModelMetric):
    """Network evaluations per generated sample: mean, and beside it minimum and maximum.

    They were counted while the samples were generated, not computed from a formula. Guidance that
    evaluates two networks per call counts twice.
    """

    name = "nfe"

    def measure(self, model: Model, *, setting: Setting) -> tuple[MetricRecord, ...]:
        """See :meth:`ModelMetric.measure`; only the first process knows all counts."""
        if not len(setting.nfe):
            return ()
        counts = setting.nfe.to(torch.float64)
        record = record_of(
            self.name,
            counts,
            metric="NFE",
            how=type(setting.pipeline.sampler).__name__,
            data=setting.reference,
            count=len(counts),
            extra={"minimum": float(counts.min()), "maximum": float(counts.max())},
        )
        return (record,)
