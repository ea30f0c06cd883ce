"""Exact likelihood by the instantaneous change of variables along the probability-flow ODE.

``d log p_t(x_t) / dt = -div v``, so ``log p_0(x) = log p_T(x_T) + int_0^T div v(x_t, t) dt``,
integrated from the data to the source together with x; p_T is the density of ``sigma(T) e``, for
which the source may be any with a known density.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from flowexp.models import Model
from flowexp.samplers.adaptive import Predict, Slope, StepControl, integrate, predictions_of

__all__ = ["Divergence", "ExactTrace", "Hutchinson", "Likelihood", "log_likelihood"]

Velocity = Callable[[Tensor], Tensor]
"""A velocity field at fixed times and conditions, (b, N) -> (b, N)."""


@dataclass(frozen=True)
class Likelihood:
    """What :func:`log_likelihood` returns.

    Attributes:
        log_p: Log density of the data, nats, (B,), float64.
        latents: The source end of the trajectories, divided by sigma there, (B, ...).
        nfe: Network evaluations per sample, (B,), int64; a backward pass is not counted.
    """

    log_p: Tensor
    latents: Tensor
    nfe: Tensor

    def bits_per_dim(self, *, offset: float = 7.0) -> Tensor:
        """``-log_p / (N ln 2) + offset``, (B,).

        Args:
            offset: log2 of the number of 8-bit levels per unit of data: 7 for data scaled to
                [-1, 1] after ``x = 2 (y + u)/256 - 1`` with u ~ U[0, 1), 8 for [0, 1].
        """
        dims = self.latents[0].numel()
        return -self.log_p / (dims * math.log(2.0)) + offset


class Divergence(ABC):
    """How ``div v`` is computed."""

    @abstractmethod
    def __call__(self, v: Velocity, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity (b, N) and its divergence (b,) at states (b, N), rows ``rows`` of the batch."""


class ExactTrace(Divergence):
    """The sum of the Jacobian's diagonal, one backward pass per dimension: for small N only."""

    def __call__(self, v: Velocity, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        out = v(x)
        total = torch.zeros(x.shape[0], dtype=x.dtype, device=x.device)
        for i in range(x.shape[1]):
            (gradient,) = torch.autograd.grad(out[:, i].sum(), x, retain_graph=True)
            total += gradient[:, i]
        return out.detach(), total


class Hutchinson(Divergence):
    """The unbiased estimate ``eps^T (dv/dx) eps``, one backward pass.

    Args:
        probes: One ``eps`` per sample with E[eps eps^T] = I, (B, ...), kept along the trajectory,
            so that log p stays unbiased; Rademacher signs have the lower variance.

    Source: Grathwohl et al., FFJORD, 2018, arXiv 1810.01367.
    """

    def __init__(self, probes: Tensor) -> None:
        self.probes = probes.flatten(1)

    def __call__(self, v: Velocity, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        eps = self.probes[rows.to(self.probes.device)].to(x)
        x = x.detach().requires_grad_()
        out = v(x)
        (gradient,) = torch.autograd.grad(out, x, eps)
        return out.detach(), (gradient * eps).sum(1)


def log_likelihood(
    model: Model,
    x: Tensor,
    *,
    divergence: Divergence,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    per_sample: bool = True,
    max_steps: int = 1000,
    **conditions: Tensor | None,
) -> Likelihood:
    """Log density of ``x`` under a model, over the whole of its time range.

    Where the range begins above t = 0, ``x`` is taken to lie there (truncation).

    Args:
        model: The model; the density of its path's source must be known.
        x: Data, (B, ...); dequantised if it comes from 8-bit images.
        divergence: How ``div v`` is computed.
        rtol: Relative tolerance of Dormand-Prince 5(4).
        atol: Absolute tolerance.
        per_sample: A step size per sample; else one for the flattened batch, as published.
        max_steps: Attempts allowed.
        conditions: (B, ...) tensors passed to the model.

    Raises:
        ValueError: The source has no known density.
        IntegrationError: The integration did not reach its end.

    Source: Song et al., Score-Based Generative Modeling through SDEs, 2021, arXiv 2011.13456, D.2.
    """
    source = model.path.source
    if not source.has_density:
        raise ValueError(
            f"log_likelihood needs a source whose density is known, which {source!r} is not; use "
            f"path.source=null or path.D=inf"
        )
    low, high = model.time_range
    shape = x.shape[1:]
    at = predictions_of(model, conditions, batch=x.shape[0])

    def slopes(times: Tensor, rows: Tensor) -> list[Slope]:
        def slope(predict: Predict, state: Tensor) -> Tensor:
            def velocity(flat: Tensor) -> Tensor:
                return predict(flat.reshape(-1, *shape)).velocity.flatten(1)

            with torch.enable_grad():
                v, div = divergence(velocity, state[:, :-1], rows)
            return torch.cat([v, div[:, None]], dim=1)

        return [partial(slope, predict) for predict in at(times, rows)]

    flat = x.to(torch.float64).flatten(1)
    state = torch.cat([flat, flat.new_zeros(flat.shape[0], 1)], dim=1)
    control = StepControl(rtol=rtol, atol=atol, per_sample=per_sample, max_steps=max_steps)
    with torch.no_grad():
        state, calls = integrate(slopes, state, start=low, end=high, control=control)
    end = torch.tensor(high, dtype=torch.float64)
    sigma = float(model.path.schedule.coefficients(end).sigma)
    latents = state[:, :-1] / sigma
    dims = latents.shape[1]
    log_prior = source.log_density(latents) - dims * math.log(sigma)
    return Likelihood(
        log_p=log_prior + state[:, -1],
        latents=latents.reshape(x.shape).to(x.dtype),
        nfe=calls * model.evaluations_per_call,
    )
