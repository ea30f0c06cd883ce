"""What sampling costs in time."""

import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from flowexp.diagnostics.base import ModelMetric, Setting, records_of
from flowexp.metrics.protocol import MetricRecord
from flowexp.models import Model

__all__ = ["ProcessorSeconds"]


class ProcessorSeconds(ModelMetric):
    """Seconds of processor time per sample, sampled again in batches of a given size.

    It is the time of this process on all cores, which other processes disturb little, unlike the
    clock's; on an accelerator, whose work is not in it, the clock's time is taken. One batch before
    the measured ones is not counted. Numbers compare on one machine with one number of threads.

    Args:
        num: Number of samples, >= 1, with the first seeds of the evaluation.
        batch_size: Samples at a time, >= 1.
    """

    name = "processor_seconds"
    follows_velocity = False

    def __init__(self, *, num: int = 16, batch_size: int = 1) -> None:
        for name, value in (("num", num), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        self.num = num
        self.batch_size = batch_size

    def measure(self, model: Model, *, setting: Setting) -> tuple[MetricRecord, ...]:
        """The time per sample; every process measures its own share."""
        pipeline = setting.pipeline.replace(batch_size=self.batch_size)
        on_cpu = torch.device(pipeline.device).type == "cpu"
        clock = time.process_time if on_cpu else time.perf_counter
        next(pipeline.batches(list(setting.seeds[: self.batch_size]))).x.cpu()

        def seconds(seeds: list[int]) -> Mapping[str, Tensor]:
            began = clock()
            for batch in pipeline.batches(seeds):
                batch.x.cpu()
            spent = (clock() - began) / len(seeds)
            return {"value": torch.full((len(seeds),), spent, dtype=torch.float64)}

        again = replace(setting, pipeline=pipeline)
        return records_of(
            self.name,
            again.per_item(setting.seeds[: self.num], seconds, what="timed"),
            metric="processor seconds per sample",
            how=f"batches of {self.batch_size}",
            data=setting.reference,
        )
