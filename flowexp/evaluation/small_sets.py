"""Scores on small data sets: the default number of samples, and remarks beside the scores."""

from collections.abc import Collection, Iterator

from flowexp.data.base import Dataset, ImageArrays
from flowexp.metrics.base import Metric

__all__ = ["remarks", "sample_count"]

_SAMPLES = 5000
_FEW = 4
_PER_IMAGE = 10
"""More samples per training image do not help: the choice of training images then dominates the
variance of a score."""


def sample_count(images: int) -> int:
    """The default number of samples: 5000, or ten per training image if that is less."""
    return min(_SAMPLES, max(2, _PER_IMAGE * images))


def remarks(
    metrics: Collection[Metric],
    *,
    dataset: Dataset | None,
    heldout: ImageArrays | None,
    count: int,
) -> Iterator[str]:
    """Remarks to show beside the scores of prepared metrics, one sentence each.

    Args:
        metrics: Metrics of samples.
        dataset: The data set that samples are compared with; None = unknown.
        heldout: Its held-out images.
        count: The number of samples.
    """
    compared = [metric for metric in metrics if not metric.paired and metric.needs_reference]
    if heldout is None and compared and dataset is not None:
        text = f"There is no floor, because {dataset.name} has no held-out images."
        yield " ".join(filter(None, (text, dataset.how_to_hold_out)))
    real = 0 if heldout is None else len(heldout)
    if any(metric.minimum_samples <= real < count / _FEW for metric in compared):
        text = f"The floor is measured on only {real:,} images, and fewer images score worse."
        yield f"{text} Set num_samples={real} for a comparison at equal counts."
    for metric in compared:
        remark = metric.remark(count=count)
        if remark is not None:
            yield remark
