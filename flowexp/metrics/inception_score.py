"""The Inception score exp(E_x KL(p(y | x) || p(y))) of class logits, and the metric by it.

Source: Salimans et al. 2016, arXiv 1606.03498. Defaults, chunks, order and spread follow
torch-fidelity: chunk i is [i n // splits, (i + 1) n // splits), std with ddof 0.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from flowexp.metrics.base import Extractor, Records
from flowexp.metrics.feature_metric import FeatureMetric


def shuffle_order(n: int, *, seed: int = 2020) -> Tensor:
    """The permutation torch-fidelity applies before splitting, (n,) int64."""
    # the published protocol uses this legacy generator
    return torch.from_numpy(np.random.RandomState(seed).permutation(n))


def inception_score(logits: Tensor, *, splits: int = 10, order: Tensor | None = None) -> Tensor:
    """Inception score of each of 1..n splits of class logits (n, classes), (splits,) float64.

    The published score is that of Inception's 1008 unbiased logits, permuted first by an ``order``
    (n,), usually ``shuffle_order(n)``; None keeps the order.
    """
    n = len(logits)
    if not 1 <= splits <= n:
        raise ValueError(f"splits must be in 1..{n}, got {splits}")
    rows = logits.double() if order is None else logits[order.long()].double()
    log_p = rows.log_softmax(1)
    values = []
    for i in range(splits):
        chunk = log_p[i * n // splits : (i + 1) * n // splits]
        # log p(y) from logs: a class no sample reaches must not become log 0
        log_marginal = chunk.logsumexp(0) - torch.tensor(len(chunk), dtype=torch.float64).log()
        values.append((chunk.exp() * (chunk - log_marginal)).sum(1).mean().exp())
    return torch.stack(values)


class InceptionScore(FeatureMetric):
    """exp(E KL(p(y | x) || p(y))) over splits; needs no reference set.

    Every record carries the spread over the splits (ddof 0) as ``extra["std"]``. The number depends
    strongly on the splits, which are therefore part of its title.

    Args:
        extractor: Gives class logits; Inception's without bias for the published score.
        name: Stem of the metric's key; ``inception_score`` only on Inception's logits.
        splits: Number of chunks, >= 1.
        seed: Seed of the permutation applied first; None keeps the order of the samples.
        split_size: Chunks of this many samples (the last may be smaller) in place of ``splits``
            chunks of equal size, as ADM's evaluator (5000, in order); None = ``splits``.

    Raises:
        ValueError: If ``splits`` or ``split_size`` is impossible.
    """

    later_options: ClassVar[Mapping[str, object]] = {"split_size": None}

    needs_reference = False
    higher_is_better = True

    def __init__(
        self,
        extractor: Extractor,
        *,
        name: str,
        splits: int = 10,
        seed: int | None = 2020,
        split_size: int | None = None,
    ) -> None:
        super().__init__(extractor, name=name)
        if splits < 1:
            raise ValueError(f"splits must be at least 1, got {splits}")
        if split_size is not None and split_size < 1:
            raise ValueError(f"split_size must be at least 1 or null, got {split_size}")
        self.splits, self.split_size, self.seed = splits, split_size, seed
        self.minimum_samples = splits if split_size is None else 1
        self.chunks = f"{splits} splits" if split_size is None else f"splits of {split_size}"
        order = "in order" if seed is None else f"shuffled by seed {seed}"
        self.settings = f"{self.chunks}, {order}"

    def measure(self, rows: Tensor) -> Records:
        order = None
        if self.seed is not None:
            order = shuffle_order(len(rows), seed=self.seed).to(rows.device)
        if self.split_size is None:
            scores = inception_score(rows, splits=self.splits, order=order)
        else:
            ordered = rows if order is None else rows[order]
            parts = torch.split(ordered, self.split_size)
            scores = torch.cat([inception_score(part, splits=1) for part in parts])
        metric, extra = f"IS ({self.chunks})", {"std": float(scores.std(correction=0))}
        return (self.record(metric, float(scores.mean()), count=len(rows), extra=extra),)
