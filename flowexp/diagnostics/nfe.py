"""The cost of a sample as a record of its own."""

import torch

from flowexp.diagnostics.base import ModelMetric, Setting, records_of
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
