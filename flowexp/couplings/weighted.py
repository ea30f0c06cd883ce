"""Independent pairs with Gibbs-kernel weights: W-CFM."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from flowexp.couplings.base import BatchCoupling, Pairs
from flowexp.couplings.transport import squared_cost
from flowexp.parameterizations import Conditions
from flowexp.requirements import Part

__all__ = [
    "Costs",
    "DataCorrection",
    "EuclideanCost",
    "NoCorrection",
    "PairCost",
    "SquaredCost",
    "TiltCorrection",
    "Weighted",
    "epsilon_for",
    "gibbs_plan",
    "normalized_weights",
    "relative_ess",
]

_DOUBLINGS = 60
_BISECTIONS = 40


class PairCost(Part, ABC):
    """The cost c(e, x) of a pair, on flattened samples, float64."""

    @abstractmethod
    def of_squares(self, squares: Tensor) -> Tensor:
        """The cost of pairs with squared distances ``squares``, any shape."""

    def paired(self, e: Tensor, x: Tensor) -> Tensor:
        """``c(e_i, x_i)``, (B,)."""
        difference = e.detach().to(torch.float64) - x.detach().to(torch.float64)
        return self.of_squares(difference.flatten(1).square().sum(1))

    def matrix(self, e: Tensor, x: Tensor) -> Tensor:
        """``c(e_i, x_j)``, (B_e, B_x)."""
        return self.of_squares(squared_cost(e, x))


class EuclideanCost(PairCost):
    """``c = |e - x|``, neither squared nor divided by the number of dimensions."""

    def of_squares(self, squares: Tensor) -> Tensor:
        return squares.sqrt()


class SquaredCost(PairCost):
    """``c = |e - x|^2``; it needs a much larger epsilon than :class:`EuclideanCost`."""

    def of_squares(self, squares: Tensor) -> Tensor:
        return squares


class TiltCorrection(Part, ABC):
    """A factor of the weights that counteracts the change of the marginals."""

    @abstractmethod
    def log_factor(self, costs: "Costs", *, epsilon: float) -> Tensor | float:
        """Logarithm of the factor per data row, (B,), or a number."""


class NoCorrection(TiltCorrection):
    """The plain kernel: data are weighted by ``k(x) = E_e exp(-c(e, x) / epsilon)``."""

    def log_factor(self, costs: "Costs", *, epsilon: float) -> Tensor | float:
        return 0.0


class DataCorrection(TiltCorrection):
    """``1 / k(x)`` with k estimated over the sources of the batch: the data keep their weight.

    The marginal of the source stays tilted; for both one needs a plan (:class:`EntropicOT`).
    """

    def log_factor(self, costs: "Costs", *, epsilon: float) -> Tensor | float:
        found = costs.all
        return math.log(len(found)) - torch.logsumexp(-found / epsilon, dim=0)


class Costs:
    """The costs of a batch, each computed once and only if it is used; float64."""

    def __init__(self, cost: PairCost, e: Tensor, x: Tensor) -> None:
        self._cost = cost
        self._batch = e, x

    @cached_property
    def paired(self) -> Tensor:
        """``c(e_i, x_i)``, (B,)."""
        return self._cost.paired(*self._batch)

    @cached_property
    def all(self) -> Tensor:
        """``c(e_i, x_j)``, (B, B)."""
        return self._cost.matrix(*self._batch)


def normalized_weights(log_weight: Tensor) -> Tensor:
    """``exp(log_weight)`` divided by its mean, (B,), float64, without underflow."""
    shifted = log_weight.detach().to(torch.float64)
    weight = torch.exp(shifted - shifted.max())
    return weight / weight.mean()


def relative_ess(weight: Tensor) -> Tensor:
    """Effective sample size over sample size, ``(sum w)^2 / (B sum w^2)`` in [1/B, 1]; ()."""
    return weight.sum().square() / (len(weight) * weight.square().sum())


def gibbs_plan(cost: Tensor, *, epsilon: float) -> Tensor:
    """``exp(-cost / epsilon)`` divided by its sum, of the shape of ``cost``.

    It is the entropic plan of this cost and regularization between its own marginals.
    """
    return torch.softmax(-cost.flatten() / epsilon, dim=0).reshape(cost.shape)


def epsilon_for(ess: float, log_weight: Callable[[float], Tensor], *, start: float) -> float:
    """The epsilon at which ``normalized_weights(log_weight(epsilon))`` has a relative ESS ``ess``.

    The ESS grows with epsilon; a value that no epsilon reaches gives the nearest that was tried.
    ``start``, > 0, is a first guess.
    """

    def too_small(epsilon: float) -> bool:
        return bool(relative_ess(normalized_weights(log_weight(epsilon))) < ess)

    low = high = start
    for _ in range(_DOUBLINGS):
        if not too_small(high):
            break
        low, high = high, 2.0 * high
    for _ in range(_DOUBLINGS):
        if too_small(low):
            break
        low, high = 0.5 * low, low
    for _ in range(_BISECTIONS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if too_small(middle) else (low, middle)
    return high


class Weighted(BatchCoupling):
    """Independent pairs with weight ``w = exp(-c(e, x) / epsilon)``, of mean 1 over the batch.

    The minimiser is the velocity of the coupling ``q ~ w mu(de) nu(dx)``, whatever the factor of
    w. q is the entropic plan between its own marginals ``mu h``, ``nu k``, with
    ``h(e) = E_x w``, ``k(x) = E_e w``: shorter, straighter paths without a plan, and no bias of the
    batch size, at the price of tilted marginals. ``epsilon -> inf`` is the independent coupling;
    ``epsilon -> 0`` leaves a few pairs, and is no optimal transport.

    Exactly one of epsilon, kappa and ess is given. The normalisation has a bias of order 1/B. The
    training logs the relative effective sample size ``(sum w)^2 / (B sum w^2)``, epsilon, and the
    mean norm of the data with and without weights.

    Args:
        epsilon: Scale of the kernel in the unit of the cost, > 0.
        kappa: ``epsilon = kappa sqrt(N)`` for samples of N numbers, > 0.
        ess: Relative effective sample size, in (0, 1): epsilon is chosen in every batch to have it;
            0.5 to 0.9 is a good range.
        cost: The cost c.
        tilt_correction: What is done about the tilted marginals.
        across_devices: Normalise (and correct, and choose epsilon) over the batch of all devices,
            not over each one's share.

    Source: Calvo-Ordonez et al., Weighted Conditional Flow Matching, 2025, arXiv 2507.22270 (the
    weights and their relation to the entropic plan); the Euclidean cost, epsilon = 5 for CIFAR-10
    and kappa are those of an unofficial implementation; normalisation, ess and tilt_correction are
    ours.
    """

    def __init__(
        self,
        *,
        epsilon: float | None = 5.0,
        kappa: float | None = None,
        ess: float | None = None,
        cost: PairCost,
        tilt_correction: TiltCorrection,
        across_devices: bool = True,
    ) -> None:
        super().__init__(across_devices=across_devices)
        given = [
            n for n, v in (("epsilon", epsilon), ("kappa", kappa), ("ess", ess)) if v is not None
        ]
        if len(given) != 1:
            raise ValueError(
                f"epsilon, kappa and ess are three ways to choose epsilon, but "
                f"{' and '.join(given) or 'none'} is given; expected one, the others null"
            )
        for name, value in (("epsilon", epsilon), ("kappa", kappa)):
            if value is not None and not value > 0.0:
                raise ValueError(f"{name} is {value}; expected a positive number")
        if ess is not None and not 0.0 < ess < 1.0:
            raise ValueError(f"ess is {ess}; expected a number in (0, 1)")
        self.epsilon = epsilon
        self.kappa = kappa
        self.ess = ess
        self.cost = cost
        self.tilt_correction = tilt_correction

    def pair(self, x: Tensor, e: Tensor, conditions: Conditions, **_: object) -> Pairs:
        """The batch unchanged, with weights, (B,), float64, and what the training logs."""
        costs = Costs(self.cost, e, x)
        epsilon = self.scale(costs, dimensions=x[0].numel())
        weight = normalized_weights(self.log_weight(costs, epsilon=epsilon))
        norm = torch.linalg.vector_norm(x.flatten(1), dim=1, dtype=torch.float64)
        metrics = {
            "coupling_ess": relative_ess(weight),
            "coupling_epsilon": torch.full_like(weight[0], epsilon),
            "data_norm": norm.mean(),
            "data_norm_weighted": (weight * norm).mean(),
        }
        return Pairs(x=x, e=e, conditions=conditions, weight=weight, metrics=metrics)

    def log_weight(self, costs: Costs, *, epsilon: float) -> Tensor:
        """Logarithm of the weights before normalisation, (B,), float64."""
        return self.tilt_correction.log_factor(costs, epsilon=epsilon) - costs.paired / epsilon

    def scale(self, costs: Costs, *, dimensions: int) -> float:
        """Epsilon for a batch."""
        if self.epsilon is not None:
            return float(self.epsilon)
        if self.kappa is not None:
            return self.kappa * math.sqrt(dimensions)
        assert self.ess is not None
        spread = float(costs.paired.std(correction=0)) or 1.0
        return epsilon_for(
            self.ess, lambda epsilon: self.log_weight(costs, epsilon=epsilon), start=spread
        )
