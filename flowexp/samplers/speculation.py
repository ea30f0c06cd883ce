"""The formulas of speculative decoding with densities: ratios, residuals, mask schedule.

A draft x of law q is accepted with probability ``min(1, p(x)/q(x))``; else x comes from the
residual ``max(0, p - q)/Z``, ``Z = int max(0, p - q)``. Its law is then p, and the probability of
acceptance is ``int min(p, q) = 1 - Z``. Everything here is the logarithm of such a quantity: in 16
dimensions densities leave the range of floating point.

Source: Leviathan et al., Fast Inference from Transformers via Speculative Decoding, 2022, arXiv
2211.17192; Wang et al., Continuous Speculative Decoding, 2024, arXiv 2411.11925.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "Gaussian",
    "log_acceptance",
    "log_residual_acceptance",
    "log_sigma",
    "tokens_per_step",
]


@dataclass(frozen=True)
class Gaussian:
    """Independent normal laws of all entries: mean (N, ...), std > 0 that broadcasts to it."""

    mean: Tensor
    std: Tensor

    def log_density(self, x: Tensor) -> Tensor:
        """The log density of x (N, ...) as (N,), without the term of 2 pi, which ratios lack."""
        std = self.std.expand_as(self.mean)
        terms = -0.5 * ((x - self.mean) / std).square() - std.log()
        return terms.flatten(1).sum(dim=1)


def log_sigma(draft_log_std: Tensor, target_log_std: Tensor) -> Tensor:
    """``log Sigma``, ``Sigma = prod_{k >= 2} prod_i s_q,k,i / s_p,k,i``, (N,).

    The factor of the steps before the last one in the ratio of two trajectories p / q with the same
    noise: ``p(y_{k-1} | y_k)`` is ``exp(-n_k^2/2)/s_p,k`` there, and the exponents cancel. The
    arguments are ``sum_k log s_k,i``, (N, D). The authors' code has the inverse of it, against
    their formula.
    """
    return (draft_log_std - target_log_std).flatten(1).sum(dim=1)


def log_acceptance(
    x: Tensor, *, target: Gaussian, draft: Gaussian, log_sigma: Tensor | float = 0.0
) -> Tensor:
    """``log(Sigma p(x)/q(x))``, (N,): x (N, ...) is accepted if it is at least log u, u ~ U(0, 1).

    ``log_sigma`` 0 is the exact criterion for tokens of the laws p (``target``) and q (``draft``).
    """
    return target.log_density(x) - draft.log_density(x) + log_sigma


def log_residual_acceptance(log_ratio: Tensor) -> Tensor:
    """``log(max(0, Sigma p - q)/(Sigma p)) = log(1 - 1/ratio)``; -inf where the ratio is <= 1.

    With this probability a proposal from p is one from ``max(0, p - q)/Z``; Z cancels.
    """
    above = log_ratio > 0.0
    log = torch.log(-torch.expm1(-torch.where(above, log_ratio, 1.0)))
    return torch.where(above, log, -torch.inf)


def tokens_per_step(tokens: int, steps: int) -> list[int]:
    """How many of L tokens MAR reveals at each of N steps.

    ``m_s = max(1, min(m_{s-1} - 1, floor(L cos(pi/2 (s + 1)/N))))`` tokens remain after step s,
    from ``m_{-1} = L``; the last step reveals all that remain. N = L is one token a step, N > L
    leaves steps without any.

    Source: Li et al., MAR, 2024, arXiv 2406.11838, their code; Chang et al., MaskGIT, 2022, arXiv
    2202.04200 (cosine schedule).
    """
    left, revealed = tokens, []
    for step in range(steps - 1):
        share = math.cos(0.5 * math.pi * (step + 1) / steps)
        after = max(1, min(left - 1, math.floor(tokens * share)))
        revealed.append(left - after)
        left = after
    return [*revealed, left]
