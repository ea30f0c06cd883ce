"""What may be done to the state before a step."""

import dataclasses
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flowexp.samplers.field import Field, Interval
from flowexp.seeding import Noise

__all__ = ["Churn", "Perturbation", "StateNoise"]

_LARGEST_RAISE = math.sqrt(2.0) - 1.0


class Perturbation(ABC):
    """A change of the state, and perhaps of the noise level, before each step.

    Attributes:
        needs_gaussian: Whether it is right for a Gaussian source only.
    """

    needs_gaussian: bool

    @abstractmethod
    def apply(
        self, field: Field, z: Tensor, interval: Interval, noise: Noise
    ) -> tuple[Tensor, Interval]:
        """The changed state, and the interval that starts where it now lies.

        Args:
            field: The field with the solver's variable.
            z: State at the interval's start, in that variable.
            interval: The step to come.
            noise: Normal noise, by the number of the step.
        """


class Churn(Perturbation):
    """EDM's churn: raise the noise level before a step by adding fresh noise.

    With ``n = sigma/alpha`` in [S_min, S_max]: ``n_hat = (1 + gamma) n``,
    ``gamma = min(S_churn/N, sqrt 2 - 1)`` for N steps, and
    ``x_hat/alpha_hat = x_t/alpha + sqrt(n_hat^2 - n^2) S_noise eps``. The raised level is moved to
    the nearest one the model knows, and may lie above its time range by that factor, as in the
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
        S_max: float = math.inf,
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

    def apply(
        self, field: Field, z: Tensor, interval: Interval, noise: Noise
    ) -> tuple[Tensor, Interval]:
        """The state at the raised level, or unchanged outside [S_min, S_max]."""
        start = interval.start
        alpha, sigma = field.levels(start)
        n = sigma / alpha if alpha > 0.0 else math.inf
        gamma = min(self.S_churn / interval.count, _LARGEST_RAISE)
        if gamma == 0.0 or not self.S_min <= n <= self.S_max or math.isinf(n):
            return z, interval
        raised = torch.tensor(n * (1.0 + gamma), dtype=torch.float64)
        node = field.node_at(float(field.model.nearest_time(field.schedule.time_at_nsr(raised))))
        alpha_hat, sigma_hat = field.levels(node)
        # Of a level that was moved back to n, rounding may leave a negative difference.
        added = math.sqrt(max(0.0, (sigma_hat / alpha_hat) ** 2 - n**2))
        amount = added * self.S_noise * alpha_hat / node.scale
        keep = (start.scale / alpha) * (alpha_hat / node.scale)
        moved = dataclasses.replace(interval, start=node)
        return torch.add(z * keep, noise(interval.index, z), alpha=amount), moved


class StateNoise(Perturbation):
    """Noise on the state that the sampler is not told of: ``x_t + scale sigma(t) eps``, same t.

    A test of robustness, not a sampling method; it makes sense for every source.

    Args:
        scale: Amount relative to the noise level, >= 0 (0.1 and 0.2 as published).

    Source: Xu et al., PFGM++, 2023, arXiv 2302.04265, section 5.2 (their alpha).
    """

    needs_gaussian = False

    def __init__(self, *, scale: float) -> None:
        if scale < 0.0:
            raise ValueError(f"scale is {scale}; expected a number >= 0")
        self.scale = float(scale)

    def apply(
        self, field: Field, z: Tensor, interval: Interval, noise: Noise
    ) -> tuple[Tensor, Interval]:
        """The disturbed state at the same node."""
        start = interval.start
        amount = self.scale * field.levels(start)[1] / start.scale
        return torch.add(z, noise(interval.index, z), alpha=amount), interval
