"""PFGM's loss: the normalised field of a large batch of charges."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives.base import Loss, Objective
from flowexp.objectives.premetrics import Premetric
from flowexp.objectives.regression import weighted
from flowexp.objectives.stable_target import (
    Groups,
    finite_set_mean,
    first_rows,
    groups_of,
    require_trained,
    spread,
)
from flowexp.objectives.weightings import Weighting
from flowexp.parameterizations import FieldConversion, normalized_field
from flowexp.paths import Prediction

__all__ = ["FieldPoints", "PoissonField", "field_points"]

_SMALL_LEVEL = 0.005
_RESTRICTED = 0.7


@dataclass(frozen=True)
class FieldPoints:
    """States, (B, ...), with an extra coordinate z, the noise level, (B,), > 0; float64."""

    x: Tensor
    level: Tensor


def field_points(
    x: Tensor, *, growth: Tensor, level: Tensor, radius: Tensor, direction: Tensor
) -> FieldPoints:
    """``x + radius growth u``, ``z = |level| growth`` with ``u = direction/|direction|``.

    With ``growth = (1 + tau)^m``, ``level`` drawn from ``sigma_end N(0, 1)``, ``radius`` the norm
    of a draw of ``sigma_end N(0, I_N)``, (B,) each, and normal draws ``direction``, (B, ...).
    """
    wide = direction.to(torch.float64)
    norm = torch.linalg.vector_norm(wide.flatten(1), dim=1)
    shift = expand_as(radius.to(torch.float64) * growth / norm, wide) * wide
    return FieldPoints(x.to(torch.float64) + shift, level.to(torch.float64).abs() * growth)


class PoissonField(Objective):
    """``weight premetric(F - sqrt(N) v/(|v| + gamma))`` over the N + 1 components of the field.

    The batch is a set of charges; ``v = (mu - x, -z)`` with mu the kernel-weighted mean of the set
    (:func:`~flowexp.objectives.finite_set_mean`) points along the field. The objective
    draws the points itself: ``m ~ U[0, M]``, ``z = |N(0, sigma_end^2)| (1 + tau)^m``, radius
    ``|N(0, sigma_end^2 I_N)| (1 + tau)^m``, direction uniform. It ignores the times and the
    source draws of the training loop. With path.D = 1 this is PFGM; other D use their own kernel,
    which no paper does. With ``parameterization=poisson_field`` F is the network's output; another
    prediction is compared through the field of its denoised state. With labels, only charges of
    the same label count.

    The set is one process's micro-batch. The authors train on the first 128 of 4096 images
    (CelebA 64: 128 of 512, LSUN bedroom: all 32), and halve the sum of squares; ``premetric=l2``
    is its mean.

    Args:
        weighting: Loss weight at the points' time; PFGM has none.
        M: Largest exponent, > 0 (291; 356 for LSUN).
        tau: Growth per unit of the exponent, > 0.
        sigma_end: Size of the smallest perturbation, > 0.
        gamma: Softening of the normalisation, >= 0.
        restrict_M: Draw m again from [0, int(0.7 M)] where ``|N(0, sigma_end^2)| < 0.005``.
        trained: Points per batch, >= 1; the other rows are charges only. None = all.

    Source: Xu et al., PFGM, 2022, arXiv 2209.11178, algorithm 1; Newbeeer/Poisson_flow, losses.py
    and models/utils_poisson.py.
    """

    def __init__(
        self,
        *,
        weighting: Weighting,
        premetric: Premetric,
        M: float = 291.0,
        tau: float = 0.03,
        sigma_end: float = 0.01,
        gamma: float = 5.0,
        restrict_M: bool = True,
        trained: int | None = None,
    ) -> None:
        if not (M > 0.0 and tau > 0.0 and sigma_end > 0.0 and gamma >= 0.0):
            raise ValueError(
                f"need M, tau, sigma_end > 0 and gamma >= 0, got {M}, {tau}, {sigma_end}, {gamma}"
            )
        require_trained(trained)
        self.weighting = weighting
        self.premetric = premetric
        self.M = float(M)
        self.tau = float(tau)
        self.sigma_end = float(sigma_end)
        self.gamma = float(gamma)
        self.restrict_M = restrict_M
        self.trained = trained

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        """One network call at points drawn from ``rng``."""
        part = first_rows(pairs, self.trained)
        points = self._draw(part.x, rng)
        groups = groups_of(pairs, len(part.x))
        along_x, along_level = self.target(points, reference=pairs.x, D=model.path.D, groups=groups)
        schedule = model.path.schedule
        time = schedule.time_at_nsr(points.level)
        c = schedule.coefficients(time)
        state = expand_as(c.alpha, points.x) * points.x
        found_x, found_level = self._field(model.predict(state, time, **part.conditions), points)
        difference = [(found_x - along_x).flatten(1), (found_level - along_level)[:, None]]
        value = self.premetric(torch.cat(difference, dim=1))
        loss = weighted(value, weight=self.weighting(c), pairs=part)
        return Loss(spread(loss, batch=len(pairs.x)))

    def target(
        self, points: FieldPoints, *, reference: Tensor, D: float, groups: Groups | None = None
    ) -> tuple[Tensor, Tensor]:
        """The normalised field at ``points``: along x, (B, ...), and along z, (B,).

        The charges are ``reference``, (K, ...), in a space with ``D`` extra dimensions; for
        ``groups`` see :func:`~flowexp.objectives.finite_set_mean`.
        """
        mean = finite_set_mean(points.x, points.level, reference=reference, D=D, groups=groups)
        return normalized_field(mean - points.x, points.level, gamma=self.gamma)

    def _field(self, prediction: Prediction, points: FieldPoints) -> tuple[Tensor, Tensor]:
        conversion = prediction.conversion
        if isinstance(conversion, FieldConversion):
            return conversion.field(prediction.output, like=points.x)
        return normalized_field(prediction.data - points.x, points.level, gamma=self.gamma)

    def _draw(self, x: Tensor, rng: torch.Generator) -> FieldPoints:
        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=rng, dtype=torch.float64, device=rng.device)

        level = self.sigma_end * normal(len(x)).abs()
        u = torch.rand(len(x), 2, generator=rng, dtype=torch.float64, device=rng.device)
        lower = float(int(_RESTRICTED * self.M)) if self.restrict_M else self.M
        m = torch.where(level < _SMALL_LEVEL, lower * u[:, 1], self.M * u[:, 0])
        radius = self.sigma_end * torch.linalg.vector_norm(normal(*x.shape).flatten(1), dim=1)
        return field_points(
            x,
            growth=torch.exp(m * math.log1p(self.tau)).to(x.device),
            # Networks take the logarithm of the level.
            level=level.clamp(min=torch.finfo(torch.float32).tiny).to(x.device),
            radius=radius.to(x.device),
            direction=normal(*x.shape).to(x.device),
        )
