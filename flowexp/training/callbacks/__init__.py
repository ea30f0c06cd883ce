"""What happens beside the steps of a training, as Lightning callbacks."""

from flowexp.training.callbacks.gradient_variance import GradientVariance
from flowexp.training.callbacks.progress import Progress
from flowexp.training.callbacks.sample_grid import SampleGrid

__all__ = ["GradientVariance", "Progress", "SampleGrid"]
