"""Callbacks: what happens beside the steps of a training."""

from flowexp.training.callbacks.base import Callback
from flowexp.training.callbacks.progress import Progress
from flowexp.training.callbacks.sample_grid import SampleGrid

__all__ = ["Callback", "Progress", "SampleGrid"]
