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
) -> Iterator[tuple[str, str]]:
    """What must be said beside the numbers of prepared metrics, each with a word for what it is.

    Args:
        metrics: Those of samples.
        dataset: The data set that they are compared with; None = unknown.
        heldout: Its held-out images.
        count: The number of samples.
    """
    compared = [metric for metric in metrics if metric.needs_reference and not metric.paired]
    if heldout is None and compared and dataset is not None:
        text = f"{dataset.name} has no held-out images."
        yield "no floor", " ".join(filter(None, (text, dataset.how_to_hold_out)))
    if heldout is not None and compared and _FEW * len(heldout) < count:
        text = f"it is measured on {len(heldout):,} images, and on few even real ones score badly."
        yield "floor", f"{text} num_samples={len(heldout)} compares as many samples with it."
    for metric in metrics:
        remark = metric.remark(count=count)
        if remark is not None:
            yield "remark", remark
