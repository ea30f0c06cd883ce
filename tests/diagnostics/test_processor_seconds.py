"""Processor time: of the samples asked for, in batches of the size asked for."""

import time

import pytest
import torch

from flowexp.diagnostics import ProcessorSeconds
from flowexp.models import Model
from flowexp.paths import Linear, Path, Prediction
from tests.diagnostics.fields import measure


class Busy(Model):
    """Computes for 10 ms of processor time whatever the size of the batch."""

    def __init__(self):
        self.path, self.time_range, self.sizes = Path(Linear()), (0.0, 1.0), []

    def predict(self, x_t, t, **conditions):
        self.sizes.append(len(x_t))
        end = time.process_time() + 0.01
        while time.process_time() < end:
            pass
        return Prediction.of_velocity(self.path, x_t, t, torch.zeros_like(x_t))


def test_time_is_measured_per_sample_in_batches_of_the_given_size():
    alone, together = Busy(), Busy()
    slow = measure(ProcessorSeconds(num=4), alone, seeds=range(6))
    fast = measure(ProcessorSeconds(num=4, batch_size=4), together, seeds=range(6))
    assert set(alone.sizes) == {1}
    assert set(together.sizes) == {4}
    steps = len(together.sizes) // 2
    assert len(alone.sizes) == 5 * steps  # one sample before the measured ones
    assert slow.value >= 0.01 * steps
    assert 0.01 * steps / 4 <= fast.value < slow.value
    assert slow.protocol.extractor == "batches of 1"


@pytest.mark.parametrize("options", [{"num": 0}, {"batch_size": 0}])
def test_arguments_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="expected at least 1"):
        ProcessorSeconds(**options)
