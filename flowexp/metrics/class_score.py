"""The Inception score as a metric."""

from torch import Tensor

from flowexp.metrics.base import Extractor
from flowexp.metrics.feature_metric import FeatureMetric, Measured
from flowexp.metrics.inception_score import inception_score_of_logits, shuffle_order


class InceptionScoreMetric(FeatureMetric):
    """exp(E KL(p(y | x) || p(y))) over splits; needs no reference set.

    Every record carries the spread over the splits (ddof 0) as ``extra["std"]``. The number depends
    on the splits, which are therefore part of its title.

    Args:
        extractor: Gives class logits; Inception's without bias for the published score.
        name: Stem of the metric's key; ``inception_score`` only on Inception's logits.
        splits: Number of chunks, >= 1.
        seed: Seed of the permutation applied first; None keeps the order of the samples.

    Raises:
        ValueError: If ``splits`` is impossible.

    Source: Salimans et al. 2016, arXiv 1606.03498; defaults as in torch-fidelity.
    """

    needs_reference = False

    def __init__(
        self, extractor: Extractor, *, name: str, splits: int = 10, seed: int | None = 2020
    ) -> None:
        super().__init__(extractor, name=name)
        if splits < 1:
            raise ValueError(f"splits must be at least 1, got {splits}")
        self.splits = splits
        self.seed = seed

    @property
    def settings(self) -> str:
        """For example ``10 splits, shuffled by seed 2020``."""
        order = "in order" if self.seed is None else f"shuffled by seed {self.seed}"
        return f"{self.splits} splits, {order}"

    @property
    def minimum_samples(self) -> int:
        """One per split."""
        return self.splits

    def measure(self, rows: Tensor) -> tuple[Measured, ...]:
        """The mean over the splits."""
        order = None
        if self.seed is not None:
            order = shuffle_order(len(rows), seed=self.seed).to(rows.device)
        score = inception_score_of_logits(rows, splits=self.splits, order=order)
        metric = f"IS ({self.splits} splits)"
        extra = {"std": score.std}
        return (Measured(name=self.name, metric=metric, value=score.mean, extra=extra),)
