"""Distributions of the times t > s of consistency models, which map to r = 0."""

import copy
import math
from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.paths import Schedule
from flowexp.paths.ve import edm_sigmas
from flowexp.requirements import Parts, Unmet, all_of
from flowexp.timesteps.base import IntervalDistribution, TimestepDistribution, needs_of
from flowexp.timesteps.curricula import Curriculum
from flowexp.timesteps.intervals import drawn_end

__all__ = ["NoiseGrid", "ShrinkingRatio"]


class _ToDataThrough(IntervalDistribution):
    """t, r = 0, and a time s < t in between."""

    columns = ("t", "r", "s")
    ends_early = False
    uniforms = 1

    @abstractmethod
    def pair(self, u: Tensor, *, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """The times t and s, (n,), float64, for ``u`` in (0, 1), (n,)."""

    def quantile(self, u: Tensor, *, schedule: Schedule) -> Tensor:
        t, s = self.pair(u[:, 0], schedule=schedule)
        return torch.stack([t, torch.zeros_like(t), s], dim=1)


class ShrinkingRatio(_ToDataThrough):
    """t from a law and ``s = t (1 - q^-(stage + 1) (1 + k sigmoid(-b t)))``, 0 where negative.

    In this formula t and s are noise levels sigma/alpha. The stage is ``floor(images seen / (1000
    stage_kimg))``.

    Args:
        law: Distribution of t.
        q: Factor by which 1 - s/t shrinks from stage to stage, > 1.
        stage_kimg: Length of a stage in thousands of images, > 0.
        k: Strength of the widening of the relative gap at small times, >= 0; 0 = one ratio for all
            times (the authors' ``adj=const``).
        b: Rate at which the widening decays with the noise level, > 0.
        ratio_limit: Upper limit of ``1 - q^-(stage + 1)``, in (0, 1].
        floor: Lower limit of the noise level at s, >= 0, if that at t is above it.

    Raises:
        ValueError: A number is out of range.

    Source: Geng et al., ECT, 2024, arXiv 2406.14548, and the authors' code (CIFAR-10: q = 2,
    log-normal t with -1.1 and 2); Lee et al., TCM, 2024, arXiv 2410.14895 (limit 0.999, floor
    1e-6).
    """

    def __init__(
        self,
        law: TimestepDistribution,
        *,
        stage_kimg: float,
        q: float = 2.0,
        k: float = 8.0,
        b: float = 1.0,
        ratio_limit: float = 1.0,
        floor: float = 0.0,
    ) -> None:
        super().__init__()
        if not stage_kimg > 0.0:
            raise ValueError(f"stage_kimg is {stage_kimg}; expected a positive number")
        if not q > 1.0:
            raise ValueError(f"q is {q}; expected a number > 1")
        if not (k >= 0.0 and b > 0.0):
            raise ValueError(f"need k >= 0 and b > 0, got k={k}, b={b}")
        if not 0.0 < ratio_limit <= 1.0:
            raise ValueError(f"ratio_limit is {ratio_limit}; expected a number in (0, 1]")
        if not floor >= 0.0:
            raise ValueError(f"floor is {floor}; expected a noise level >= 0")
        self.law = law
        self.drawn_end = drawn_end("law", law)
        self.stage_kimg = float(stage_kimg)
        self.q = float(q)
        self.k = float(k)
        self.b = float(b)
        self.ratio_limit = float(ratio_limit)
        self.floor = float(floor)
        self.stage = 0

    @property
    def support(self) -> tuple[float, float]:
        return self.law.support

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """The requirements of the law of t."""
        yield from needs_of("law", self.law, parts)

    def at(self, images_seen: int) -> "ShrinkingRatio":
        """The distribution in the stage after so many images."""
        law = copy.copy(self)
        law.stage = math.floor(images_seen / (1000.0 * self.stage_kimg))
        return law

    @property
    def ratio(self) -> float:
        """``1 - q^-(stage + 1)`` of the current stage, at most ``ratio_limit``."""
        return min(1.0 - self.q ** -(self.stage + 1), self.ratio_limit)

    def middle(self, level: Tensor) -> Tensor:
        """The noise level at s, given that at t."""
        gap = (1.0 - self.ratio) * (1.0 + self.k * torch.sigmoid(-self.b * level))
        s = level * (1.0 - gap).clamp(min=0.0)
        return torch.where(level > self.floor, s.clamp(min=self.floor), 0.0)

    def pair(self, u: Tensor, *, schedule: Schedule) -> tuple[Tensor, Tensor]:
        t = self.law.times(u, schedule=schedule)
        return t, schedule.time_at_nsr(self.middle(schedule.nsr(t)))


class NoiseGrid(_ToDataThrough):
    """Neighbours on EDM's grid of noise levels: t at ``sigma_(i+1)``, s at ``sigma_i``, and r = 0.

    Args:
        curriculum: Number N of noise levels over the training.
        weights: A distribution of noise levels; the probability of a pair is its mass between the
            two levels. None = all pairs are equally probable.
        sigma_min: Lowest level, > 0.
        sigma_max: Highest level, > sigma_min.
        rho: Exponent of the grid, > 0.

    Raises:
        ValueError: A number is out of range.

    Source: Song et al., Consistency Models, 2023, arXiv 2303.01469, section 5; Song & Dhariwal,
    iCT, 2023, arXiv 2310.14189, section 3.5 (log-normal weights with -1.1 and 2).
    """

    in_nsr = True

    def __init__(
        self,
        *,
        curriculum: Curriculum,
        weights: TimestepDistribution | None = None,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
    ) -> None:
        super().__init__()
        if not 0.0 < sigma_min < sigma_max < math.inf:
            raise ValueError(
                f"need 0 < sigma_min < sigma_max, got sigma_min={sigma_min}, sigma_max={sigma_max}"
            )
        if not rho > 0.0:
            raise ValueError(f"rho is {rho}; expected a positive number")
        self.curriculum = curriculum
        self.weights = weights
        self.sigma_min = float(sigma_min)
        self.sigma_max = float(sigma_max)
        self.rho = float(rho)
        self.points = 0

    @property
    def support(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Weights that are a distribution of noise levels."""
        yield from all_of(super().needs(parts), self._weights())

    def _weights(self) -> Iterator[Unmet]:
        if self.weights is not None and not self.weights.in_nsr:
            problem = f"{type(self.weights).__name__} is a law of t, not of noise levels."
            yield Unmet(".weights", problem, "Use timestep@timestep.weights=lognormal.")

    def at(self, images_seen: int) -> "NoiseGrid":
        """The distribution on the grid after so many images."""
        law = copy.copy(self)
        law.points = self.curriculum.points(images_seen)
        return law

    def noise_levels(self) -> Tensor:
        """The N levels, ascending, float64; before :meth:`at` those of the first grid."""
        points = self.points or self.curriculum.points(0)
        grid = edm_sigmas(points, sigma_min=self.sigma_min, sigma_max=self.sigma_max, rho=self.rho)
        return grid[:-1].flip(0)

    def probabilities(self) -> Tensor:
        """The probabilities of the N - 1 pairs, by ascending level, float64."""
        levels = self.noise_levels()
        if self.weights is None:
            return torch.full((len(levels) - 1,), 1.0 / (len(levels) - 1), dtype=torch.float64)
        mass = self.weights.cdf(levels).diff()
        return mass / mass.sum()

    def index(self, u: Tensor) -> Tensor:
        """The quantiles at ``u`` in (0, 1): lower indices i of pairs, int64."""
        steps = self.probabilities().cumsum(0).to(u.device)
        return torch.searchsorted(steps, u.contiguous(), right=True).clamp(max=len(steps) - 1)

    def pair(self, u: Tensor, *, schedule: Schedule) -> tuple[Tensor, Tensor]:
        times, i = schedule.time_at_nsr(self.noise_levels().to(u.device)), self.index(u)
        return times[i + 1], times[i]
