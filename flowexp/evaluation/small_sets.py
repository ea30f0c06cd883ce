"""Scores on small data sets: how many samples, and what must be said beside the numbers."""

from collections.abc import Collection, Iterator

from flowexp.data.base import Dataset, ImageArrays
from flowexp.metrics.base import Metric

__all__ = ["remarks", "sample_count"]

_SAMPLES = 5000
_FEW = 4
_PER_IMAGE = 10
"""More samples for every training image tell no more: what a score then still varies by is which
images the training set has."""


def sample_count(images: int) -> int:
    """How many samples score a model by default: 5000, or ten for each of few training images."""
    return min(_SAMPLES, max(2, _PER_IMAGE * images))


def remarks(
    metrics: Collection[Metric],
    *,
    dataset: Dataset | None,
    heldout: ImageArrays | None,
    count: int,
) -> Iterator[str]:
    """What must be said beside the numbers of prepared metrics, a sentence each.

    Args:
        metrics: Those of samples.
        dataset: The data set that they are compared with; None = unknown.
        heldout: Its held-out images.
        count: The number of samples.
    """
    compared = [metric for metric in metrics if not metric.paired and metric.needs_reference]
    if heldout is None and compared and dataset is not None:
        text = f"There is no floor, since {dataset.name} has no held-out images."
        yield " ".join(filter(None, (text, dataset.how_to_hold_out)))
    real = 0 if heldout is None else len(heldout)
    if any(metric.minimum_samples <= real < count / _FEW for metric in compared):
        text = f"The floor is measured on {real:,} images; few score badly, even real ones."
        yield f"{text} num_samples={real} compares as many samples with it."
    for metric in compared:
        remark = metric.remark(count=count)
        if remark is not None:
            yield remark
