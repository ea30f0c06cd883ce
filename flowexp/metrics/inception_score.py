"""The Inception score exp(E_x KL(p(y | x) || p(y))) of class logits.

It depends strongly on the number of splits; the name must say it.

Source: Salimans et al. 2016, arXiv 1606.03498. Chunks, order and spread follow torch-fidelity:
chunk i is [i n // splits, (i + 1) n // splits), std with ddof 0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class InceptionScore:
    """Mean and standard deviation (ddof 0) over the splits, and the values themselves."""

    mean: float
    std: float
    per_split: Tensor


def shuffle_order(n: int, *, seed: int = 2020) -> Tensor:
    """The permutation torch-fidelity applies before splitting, (n,) int64.

    Args:
        n: Number of samples.
        seed: Seed of numpy's legacy generator.
    """
    import numpy as np

    # the published protocol is this very generator
    return torch.from_numpy(np.random.RandomState(seed).permutation(n))


def inception_score_of_logits(
    logits: Tensor, *, splits: int = 10, order: Tensor | None = None
) -> InceptionScore:
    """Inception score of class logits.

    Args:
        logits: (n, classes); Inception's 1008 unbiased logits for the published score.
        splits: Number of chunks, 1..n.
        order: Permutation applied first, (n,), usually ``shuffle_order(n)``; None keeps the order.

    Raises:
        ValueError: If ``splits`` is impossible.
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
    per_split = torch.stack(values)
    return InceptionScore(
        mean=float(per_split.mean()),
        std=float(per_split.std(correction=0)),
        per_split=per_split,
    )
