"""Euclidean distances between many feature vectors, by matrix products in float64.

The product form |a|^2 + |b|^2 - 2 a.b cancels for near neighbours, in float64 to about 1e-7 of the
vectors' length. A distance below 1e-6 of it counts as 0: float32 features of the same image differ
by that much, and rounding must not decide whether a sample is a copy.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.progress import counted

_NOISE = 1e-12
_BLOCK = 1 << 24


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2 of all pairs, (n, d) and (m, d) -> (n, m) float64, >= 0."""
    a, b = a.double(), b.double()
    lengths = a.square().sum(1)[:, None] + b.square().sum(1)
    squared = torch.addmm(lengths, a, b.T, alpha=-2)
    return squared.masked_fill_(squared <= _NOISE * lengths, 0)


def distance_rows(a: Tensor, b: Tensor) -> Iterator[tuple[int, Tensor]]:
    """First row and distances, (rows, m) float64, of each chunk of a, (n, d), to all of b, (m, d).

    Chunks hold at most 2^24 distances (128 MiB).
    """
    rows = max(1, _BLOCK // max(1, len(b)))
    with counted("distances of", total=len(a), unit="samples") as task:
        for start in range(0, len(a), rows):
            yield start, squared_distances(a[start : start + rows], b).sqrt()
            task.advance(rows)


def nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Distance, (n,) float64, and index, (n,) int64, of the row of b nearest to each row of a."""
    found = [d.min(1) for _, d in distance_rows(a, b)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
