"""Inductive moment matching: groups of samples, after a long and a shorter jump, by a kernel."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives.base import Loss, Objective
from flowexp.objectives.regression import point_of, weighted
from flowexp.objectives.weightings import Uniform, Weighting
from flowexp.requirements import Part, Parts, Unmet, all_of, on_flow_map

__all__ = ["LaplaceKernel", "MomentMatching", "mean_discrepancy"]

_LEAST_DISTANCE = 1e-8


class LaplaceKernel(Part):
    """``k(a, b) = exp(-|a - b| / (factor scale D))`` of samples with D dimensions, in (0, 1].

    scale is ``|dX/dF|``, the scale of the network's output F in the end point of a jump.

    Args:
        factor: Multiplies the scale, > 0.

    Raises:
        ValueError: factor is not positive.

    Source: Zhou et al., Inductive Moment Matching, 2025, arXiv 2503.07565 (weight 1/c_out, distance
    at least 1e-8).
    """

    def __init__(self, *, factor: float = 1.0) -> None:
        if not factor > 0.0:
            raise ValueError(f"factor is {factor}; expected a positive number")
        self.factor = float(factor)

    def __call__(self, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
        """Kernel matrices (groups, M, M) of a and b (groups, M, D) with scale (groups,)."""
        distance = torch.linalg.vector_norm(a[:, :, None] - b[:, None], dim=-1)
        width = self.factor * scale * a.shape[-1]
        return torch.exp(-distance.clamp(min=_LEAST_DISTANCE) / width[:, None, None])


def mean_discrepancy(
    kernel: LaplaceKernel, a: Tensor, b: Tensor, scale: Tensor, *, unbiased: bool = False
) -> Tensor:
    """``mean k(a, a') + mean k(b, b') - 2 mean k(a, b)`` within groups, (groups,).

    The squared MMD. The V-statistic, over all pairs, is never negative; ``unbiased`` leaves out
    pairs of a particle with itself.
    """
    pairs = kernel(a, a, scale) + kernel(b, b, scale) - 2.0 * kernel(a, b, scale)
    if not unbiased:
        return pairs.mean(dim=(1, 2))
    m = pairs.shape[1]
    own = pairs.diagonal(dim1=1, dim2=2).sum(dim=1)
    return (pairs.sum(dim=(1, 2)) - own) / max(m * (m - 1), 1)


class MomentMatching(Objective):
    """Squared MMD between ``X_{t->r}(x_t)`` and ``sg X_{s->r}(x_s)`` in groups of M samples.

    The members of a group have their own data and noise, but share the times r <= s < t of its
    first member. ``x_s = alpha_s x + sigma_s e`` has the same data and noise as x_t, which equals
    DDIM's interpolation from x_t to x. M = 1 compares single samples, as consistency models do,
    with a distance that saturates.

    Args:
        particles: Group size M, >= 1. Batches, micro-batches and shares of processes must hold
            whole groups.
        kernel: Similarity of two samples; None = the published one.
        weighting: Loss weight as a function of t; None = 1.
        unbiased: Whether to leave out pairs of a particle with itself, for which M >= 2. The
            published loss includes them (a V-statistic, never negative).

    Raises:
        ValueError: particles is too small.

    Source: Zhou, Ermon and Song, Inductive Moment Matching, 2025, arXiv 2503.07565; constants from
    lumalabs/imm, which samples only.
    """

    columns = ("t", "r", "s")
    laws = ("imm",)

    def __init__(
        self,
        *,
        particles: int = 4,
        kernel: LaplaceKernel | None = None,
        weighting: Weighting | None = None,
        unbiased: bool = False,
    ) -> None:
        least = 2 if unbiased else 1
        if particles < least:
            raise ValueError(f"particles is {particles}; expected an integer >= {least}")
        self.particles = self.group = int(particles)
        self.kernel = kernel or LaplaceKernel()
        self.weighting = weighting or Uniform()
        self.unbiased = unbiased

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A flow map that ends at any r, and times t, r and s."""
        yield from all_of(super().needs(parts), on_flow_map(parts, name=type(self).__name__))

    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        """Two network calls, one with gradient; every member has the loss of its group.

        If ``pairs`` is not made of whole groups, as in timings before a training, the groups are
        smaller.
        """
        m = math.gcd(len(t), self.particles)
        t, r, s = _of_groups(t.to(pairs.x.device), m).unbind(1)
        far, near = (point_of(pairs, model.path, time) for time in (t, s))
        found = model.flow_map(far.x_t, t, r, **pairs.conditions)
        with torch.no_grad():
            target = model.flow_map(near.x_t, s, r, **pairs.conditions)
        a, b = (x.reshape(len(t) // m, m, -1) for x in (found, target))
        scale = ((t - r) * model.output_scale(t, r))[::m]
        discrepancy = mean_discrepancy(self.kernel, a, b, scale, unbiased=self.unbiased)
        weight = self.weighting(model.path.schedule.coefficients(t))
        value = discrepancy.repeat_interleave(m)
        metrics = {"discrepancy": value.detach().mean().float()}
        return Loss(weighted(value, weight=weight, pairs=pairs), metrics)


def _of_groups(times: Tensor, size: int) -> Tensor:
    """The times of the first member of each group, for all its members."""
    return times[::size].repeat_interleave(size, dim=0)
