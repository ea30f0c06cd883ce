"""The protocol of timestep distributions: how t is drawn in training."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.paths import Schedule
from flowexp.requirements import Part, Parts, Unmet
from flowexp.seeding import open_uniform

__all__ = [
    "IntervalDistribution",
    "Stratified",
    "TimeLaw",
    "TimestepDistribution",
    "needs_of",
    "spread",
]


class TimeLaw(Part, ABC):
    """The distribution of the times of a training sample: one time, or several drawn jointly.

    Constructors raise ``ValueError`` for an argument outside the range that their docstring states.

    Attributes:
        in_nsr: Whether the values are noise levels ``sigma / alpha``, which suits every path,
            instead of times t.
        drawn_end: The argument that holds the upper end of the support, if it is itself drawn;
            empty if no argument holds it.
        columns: The times of a sample, by name.
        anchored: The share of the rows whose target is the velocity of the data: those with r = t.
        ends_early: Whether it can draw r > 0, which needs a flow map conditioned on r.
        sequence: Number of consecutive rows whose times fall, from the noisiest to the cleanest.
    """

    in_nsr: bool = False
    drawn_end: str | None = None
    columns: tuple[str, ...] = ("t",)
    anchored: float = 0.0
    ends_early: bool = False
    sequence: int = 1

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A path that has the times of this law; laws of sigma / alpha suit every path."""
        if self.in_nsr:
            return
        (low, high), schedule = self.support, parts.path.schedule
        name, path = type(self).__name__, type(schedule).__name__
        suits_all = "Use timestep=lognormal, which suits every path, or"
        instead = suits_all if len(self.columns) == 1 else "Use"
        if high <= 1.0 < schedule.t_max:
            problem = (
                f"{name} draws t in ({low:g}, {high:g}), but on the {path} path time runs from "
                f"{schedule.t_min:g} to {schedule.t_max:g}."
            )
            yield Unmet(".", problem, f"{instead} a path with time in [0, 1].")
        elif low < 0.0 or high > max(schedule.t_max, 1.0):
            end = f"the {path} path ends at t={schedule.t_max:g}."
            problem = f"{name} draws t up to {high:g}, but {end}"
            yield Unmet(".", problem, f"{instead} times within the path's.")

    @property
    def support(self) -> tuple[float, float]:
        """The open interval (low, high) of the values; (0, 1) unless overridden."""
        return 0.0, 1.0

    def at(self, images_seen: int) -> "TimeLaw":
        """The distribution after so many images; itself unless it changes during training."""
        return self

    @abstractmethod
    def sample(self, n: int, *, schedule: Schedule, rng: torch.Generator) -> Tensor:
        """Times on the path, float64, on the generator's device: (n,), or (n, len(columns))."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items())})"


def needs_of(argument: str, law: TimeLaw, parts: Parts) -> Iterator[Unmet]:
    """Requirements of a one-time law that is the ``argument`` of another; remedies name it."""
    if len(law.columns) > 1:
        problem = f"{type(law).__name__} draws several times, but one is needed here."
        yield Unmet(f".{argument}", problem, f"Use timestep@timestep.{argument}=lognormal.")
        return
    for unmet in law.needs(parts):
        remedy = unmet.remedy.replace("timestep=", f"timestep@timestep.{argument}=")
        yield Unmet(unmet.key, unmet.problem, remedy, unmet.refuses).seen_from(f".{argument}")


def spread(n: int, share: float) -> Tensor:
    """A mask of ``floor(share n)`` of n rows, evenly spread; (n,), bool."""
    # Rounded, so that a share such as 0.3 of 10 rows is 3 rows.
    counts = torch.arange(n + 1, dtype=torch.float64).mul(share).add(1e-9).floor()
    return counts.diff() > 0


class IntervalDistribution(TimeLaw):
    """Joint distribution of the times r <= t of a flow map, given by its quantile function.

    A fixed share of the rows has r = t: exactly ``floor(share n)`` of n, spread evenly over the
    batch, so that processes and micro-batches get equal numbers of them.

    Args:
        diagonal: The share of rows with r = t, in [0, 1].

    Attributes:
        uniforms: Number of uniform random numbers per sample.
    """

    columns: tuple[str, ...] = ("t", "r")
    ends_early = True
    uniforms: int = 2

    def __init__(self, *, diagonal: float = 0.0) -> None:
        if not 0.0 <= diagonal <= 1.0:
            raise ValueError(f"diagonal is {diagonal}; expected a share in [0, 1]")
        self.diagonal = self.anchored = float(diagonal)

    @abstractmethod
    def quantile(self, u: Tensor, *, schedule: Schedule) -> Tensor:
        """Times (n, len(columns)), float64, for ``u`` in (0, 1), (n, uniforms)."""

    def on_diagonal(self, n: int) -> Tensor:
        """A mask of the rows of n with r = t; (n,), bool."""
        return spread(n, self.diagonal)

    def sample(self, n: int, *, schedule: Schedule, rng: torch.Generator) -> Tensor:
        """``n`` rows of times, (n, len(columns)), float64, on the generator's device."""
        times = self.quantile(open_uniform((n, self.uniforms), rng=rng), schedule=schedule)
        if self.diagonal > 0.0:
            equal = self.on_diagonal(n).to(times.device)
            times[:, 1] = torch.where(equal, times[:, 0], times[:, 1])
        return times


class TimestepDistribution(TimeLaw):
    """A distribution of one training time, given by its quantile function."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """The value below which the probability is ``u`` in (0, 1); float64."""

    @abstractmethod
    def cdf(self, value: Tensor) -> Tensor:
        """Probability of a value at or below ``value``; float64."""

    @abstractmethod
    def pdf(self, value: Tensor) -> Tensor:
        """Probability density at ``value``; float64, 0 outside the support."""

    def uniforms(self, n: int, *, rng: torch.Generator) -> Tensor:
        """The ``n`` uniform numbers behind a batch of draws: independent, unless stratified."""
        return open_uniform((n,), rng=rng)

    def sample(self, n: int, *, schedule: Schedule, rng: torch.Generator) -> Tensor:
        """``n`` times on the path, (n,), float64, on the generator's device."""
        return self.times(self.uniforms(n, rng=rng), schedule=schedule)

    def times(self, u: Tensor, *, schedule: Schedule) -> Tensor:
        """The times on the path at probabilities ``u``: ``quantile``, unless it is in_nsr."""
        value = self.quantile(u)
        return schedule.time_at_nsr(value) if self.in_nsr else value


_LARGEST_UNIFORM = 1.0 - 2.0**-53


class Stratified(TimestepDistribution):
    """One draw from each of n equally probable strata of a distribution, in random order.

    Each time still follows the distribution; the batch covers it evenly, which lowers the variance
    of the loss between batches. With several devices the strata are those of each device's batch.

    Source: Kingma et al., Variational Diffusion Models, 2021, arXiv 2107.00630, low-discrepancy
    sampler (there with one shared offset; here with one uniform number per stratum).
    """

    def __init__(self, law: TimestepDistribution) -> None:
        self.law = law
        self.in_nsr = law.in_nsr
        self.drawn_end = None if law.drawn_end is None else f"law.{law.drawn_end}"

    @property
    def support(self) -> tuple[float, float]:
        return self.law.support

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """What the law needs."""
        yield from needs_of("law", self.law, parts)

    def quantile(self, u: Tensor) -> Tensor:
        return self.law.quantile(u)

    def cdf(self, value: Tensor) -> Tensor:
        return self.law.cdf(value)

    def pdf(self, value: Tensor) -> Tensor:
        return self.law.pdf(value)

    def uniforms(self, n: int, *, rng: torch.Generator) -> Tensor:
        """``(stratum + u) / n``, strata in random order: no row is tied to a noise level."""
        stratum = torch.randperm(n, generator=rng, device=rng.device)
        u = (stratum + open_uniform((n,), rng=rng)) / n
        return u.clamp(max=_LARGEST_UNIFORM)

    def __repr__(self) -> str:
        return f"Stratified({self.law!r})"
