"""Changes of the state before a step."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowexp.requirements import Extended, Part, Parts, Unmet, on_gaussian_noise
from flowexp.samplers.field import Field, Interval, Intervals
from flowexp.seeding import Noise

__all__ = ["Churn", "Move", "Perturbation", "StateNoise"]

_LARGEST_RAISE = math.sqrt(2.0) - 1.0


@dataclass(frozen=True, slots=True)
class Move:
    """The change ``z' = keep z + amount eps`` before a step, which begins at the new state."""

    interval: Interval
    keep: float = 1.0
    amount: float = 0.0

    def apply(self, z: Tensor, noise: Noise) -> Tensor:
        """The moved state, in the solver's variable."""
        kept = z if self.keep == 1.0 else z * self.keep
        if self.amount == 0.0:
            return kept
        return torch.add(kept, noise(self.interval.index, z), alpha=self.amount)


class Perturbation(Part, ABC):
    """A change of the state, and perhaps of the noise level, before each step.

    ``needs_gaussian`` says whether it is right for a Gaussian source only.
    """

    needs_gaussian: bool = False

    @abstractmethod
    def moves(self, field: Field, intervals: Intervals) -> list[Move]:
        """One move for each step of a walk; they do not depend on the states."""

    def describe(self) -> str:
        """The perturbation in words, as protocols state it: ``StateNoise, scale=0.1``."""
        return type(self).__name__


class Churn(Perturbation):
    """EDM's churn: raise the noise level before a step by adding fresh noise.

    With ``n = sigma/alpha`` in [S_min, S_max]: ``n_hat = (1 + gamma) n``,
    ``gamma = min(S_churn/N, sqrt 2 - 1)`` for N steps, and
    ``x_hat/alpha_hat = x_t/alpha + sqrt(n_hat^2 - n^2) S_noise eps``. The raised level is moved to
    the nearest one of the model, and may exceed its time range by that factor, as in the
    reference.

    Args:
        S_churn: Amount in all, >= 0; 0 = off.
        S_min: Smallest noise-to-signal ratio that is raised.
        S_max: Largest one.
        S_noise: Factor of the added noise.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, algorithm 2.
    """

    def __init__(
        self,
        *,
        S_churn: float,
        S_min: float = 0.0,
        S_max: Extended = math.inf,
        S_noise: float = 1.0,
    ) -> None:
        if S_churn < 0.0 or S_noise < 0.0:
            raise ValueError(f"need S_churn, S_noise >= 0, got {S_churn} and {S_noise}")
        if not 0.0 <= S_min <= S_max:
            raise ValueError(f"need 0 <= S_min <= S_max, got S_min={S_min}, S_max={S_max}")
        self.S_churn = float(S_churn)
        self.S_min = float(S_min)
        self.S_max = float(S_max)
        self.S_noise = float(S_noise)
        self.needs_gaussian = self.S_churn > 0.0

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A Gaussian source for fresh noise."""
        if self.needs_gaussian:
            what, off = f"churn with S_churn={self.S_churn:g} adds", "Set S_churn=0"
            yield from on_gaussian_noise(parts, key=".S_churn", what=what, remedy=off)

    def moves(self, field: Field, intervals: Intervals) -> list[Move]:
        starts = field.levels([interval.start for interval in intervals])
        targets = {}
        for i, (alpha, sigma) in enumerate(starts):
            gamma = min(self.S_churn / intervals[i].count, _LARGEST_RAISE)
            if gamma > 0.0 and alpha > 0.0 and self.S_min <= sigma / alpha <= self.S_max:
                targets[i] = sigma / alpha * (1.0 + gamma)
        moves = [Move(interval) for interval in intervals]
        if not targets:
            return moves
        nsr = torch.tensor(list(targets.values()), dtype=torch.float64)
        nodes = field.nodes(field.model.nearest_time(field.schedule.time_at_nsr(nsr)))
        for i, node, (alpha_hat, sigma_hat) in zip(
            targets, nodes, field.levels(nodes), strict=True
        ):
            interval, (alpha, sigma) = intervals[i], starts[i]
            # Of a level that was moved back to n, rounding may leave a negative difference.
            added = math.sqrt(max(0.0, (sigma_hat / alpha_hat) ** 2 - (sigma / alpha) ** 2))
            keep = (interval.start.scale / alpha) * (alpha_hat / node.scale)
            amount = added * self.S_noise * alpha_hat / node.scale
            moves[i] = Move(replace(interval, start=node), keep, amount)
        return moves

    def describe(self) -> str:
        return (
            f"{super().describe()}, S_churn={self.S_churn}, S_min={self.S_min}, "
            f"S_max={self.S_max}, S_noise={self.S_noise}"
        )


class StateNoise(Perturbation):
    """Noise on the state that the noise level ignores: ``x_t + scale sigma(t) eps``, same t.

    A test of robustness, not a sampling method; it makes sense for every source.

    Args:
        scale: Amount relative to the noise level, >= 0 (0.1 and 0.2 as published).

    Source: Xu et al., PFGM++, 2023, arXiv 2302.04265, section 5.2 (their alpha).
    """

    def __init__(self, *, scale: float) -> None:
        if scale < 0.0:
            raise ValueError(f"scale is {scale}; expected a number >= 0")
        self.scale = float(scale)

    def describe(self) -> str:
        return f"{super().describe()}, scale={self.scale}"

    def moves(self, field: Field, intervals: Intervals) -> list[Move]:
        levels = field.levels([interval.start for interval in intervals])
        return [
            Move(interval, amount=self.scale * sigma / interval.start.scale)
            for interval, (_, sigma) in zip(intervals, levels, strict=True)
        ]
