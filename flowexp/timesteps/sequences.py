"""Times of sequences of images, from the noisiest to the cleanest."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from flowexp.paths import Schedule
from flowexp.requirements import Parts, Unmet
from flowexp.timesteps.base import TimeLaw, TimestepDistribution, needs_of
from flowexp.timesteps.intervals import drawn_end

__all__ = ["Descending"]


class Descending(TimeLaw):
    """The times of another law, sorted within every ``length`` consecutive rows: t_1 >= t_2 >= ...

    A row that is chosen at random from its sequence follows the law; with independent uniform
    times the k-th of S rows follows ``Beta(S - k + 1, k)``. The last rows of a batch that is no
    multiple of ``length`` are a shorter sequence.

    Args:
        law: The law of one time; a stratified one has its strata over the whole batch.
        length: Rows per sequence S, >= 1.

    Raises:
        ValueError: length is below 1.

    Source: Hui et al., ARFlow, 2025, arXiv 2501.16085, the authors' code (uniform times, ascending
    in their time, which is 1 - t).
    """

    def __init__(self, law: TimestepDistribution, *, length: int) -> None:
        if length < 1:
            raise ValueError(f"length is {length}; expected at least 1")
        self.law = law
        self.length = self.sequence = int(length)
        self.drawn_end = drawn_end("law", law)

    @property
    def support(self) -> tuple[float, float]:
        return self.law.support

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """What the law needs."""
        yield from needs_of("law", self.law, parts)

    def at(self, images_seen: int) -> TimeLaw:
        law = self.law.at(images_seen)
        assert isinstance(law, TimestepDistribution)
        return self if law is self.law else Descending(law, length=self.length)

    def sample(self, n: int, *, schedule: Schedule, rng: torch.Generator) -> Tensor:
        t = self.law.sample(n, schedule=schedule, rng=rng)
        whole = F.pad(t, (0, -n % self.length), value=-math.inf).reshape(-1, self.length)
        ordered = whole.sort(dim=1, descending=True).values
        return ordered.flatten()[:n]
