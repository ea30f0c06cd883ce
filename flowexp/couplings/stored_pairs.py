"""Couplings made by a trained flow: each sample with the draw it came from, or mixed with it."""

import math
from abc import ABC, abstractmethod

from torch import Tensor

from flowexp.couplings.base import Coupling, Pairs
from flowexp.parameterizations import Conditions

__all__ = [
    "StoredPairs",
    "require_partner",
    "AnnealedPairs",
    "Annealing",
    "ConstantAnnealing",
    "CosineAnnealing",
    "ExponentialAnnealing",
    "LinearAnnealing",
]


class StoredPairs(Coupling):
    """Each x with the e that is stored beside it: the pairs of reflow, or of two data sets.

    ``(x', e)`` with ``x'`` the end of a teacher's ODE that starts at e is a deterministic coupling
    with the data's marginals (up to the teacher's error) and a transport cost no larger than that
    of the coupling the teacher learned. Repeating it gives k-rectified flows. The pairs must stay
    together: re-pairing one side would give the independent coupling.

    Source: Liu et al., Flow Straight and Fast, 2022, arXiv 2209.03003, section 2.2.
    """

    needs_partner = True

    def pair(
        self,
        x: Tensor,
        e: Tensor,
        conditions: Conditions,
        *,
        partner: Tensor | None = None,
        **_: object,
    ) -> Pairs:
        return Pairs(x=x, e=require_partner(x, partner), conditions=conditions)


def require_partner(x: Tensor, partner: Tensor | None) -> Tensor:
    """The partner in the dtype of x; ``ValueError`` if there is none, or its shape is another."""
    if partner is None:
        raise ValueError("this coupling needs the source draws stored with the data; set pairs=DIR")
    if partner.shape != x.shape:
        raise ValueError(
            f"partners have shape {tuple(partner.shape)}, but data {tuple(x.shape)}; expected the "
            f"same"
        )
    return partner.to(x.dtype)


class Annealing(ABC):
    """The share beta of fresh noise as a function of the images seen in training.

    Source: Zhu et al., SlimFlow, 2024, arXiv 2407.12718: table 4 has :class:`LinearAnnealing` (the
    best) and beta = 0; the authors' code has the others.
    """

    @abstractmethod
    def __call__(self, images_seen: int) -> float:
        """Beta in [0, 1] before a batch; 1 = independent coupling, 0 = the stored pairs."""


class _OverKimg(Annealing):
    """A function of the thousands of images k seen over all devices, on a scale K = kimg > 0."""

    def __init__(self, kimg: float) -> None:
        if not kimg > 0.0:
            raise ValueError(f"kimg is {kimg}; expected a positive number")
        self.kimg = float(kimg)

    def _progress(self, images_seen: int) -> float:
        """Fraction ``k / K``."""
        return images_seen / (1000.0 * self.kimg)


class LinearAnnealing(_OverKimg):
    """``beta = 1 - min(1, k / K)``: after ``kimg = K`` only the stored pairs are left."""

    def __call__(self, images_seen: int) -> float:
        return 1.0 - min(1.0, self._progress(images_seen))


class CosineAnnealing(_OverKimg):
    """``beta = (1 + cos(pi min(1, k / K))) / 2``, K as in :class:`LinearAnnealing`."""

    def __call__(self, images_seen: int) -> float:
        return (1.0 + math.cos(math.pi * min(1.0, self._progress(images_seen)))) / 2.0


class ExponentialAnnealing(_OverKimg):
    """``beta = exp(-k / K)``, which falls by a factor e in ``kimg = K`` and never reaches 0."""

    def __call__(self, images_seen: int) -> float:
        return math.exp(-self._progress(images_seen))


class ConstantAnnealing(Annealing):
    """The same beta, in [0, 1], all the time."""

    def __init__(self, beta: float) -> None:
        if not 0.0 <= beta <= 1.0:
            raise ValueError(f"beta is {beta}; expected a number in [0, 1]")
        self.beta = float(beta)

    def __call__(self, images_seen: int) -> float:
        return self.beta


class AnnealedPairs(Coupling):
    """Each x with ``e_beta = sqrt(1 - beta^2) e + beta e'``, e stored beside it and e' fresh.

    e_beta is normal whenever e and e' are: the marginals stay, and the joint distribution moves
    from the independent coupling (beta = 1) to the stored pairs (beta = 0, bit for bit). A network
    that cannot start from the teacher's weights thus learns an ordinary flow first.

    Source: Zhu et al., SlimFlow, 2024, arXiv 2407.12718, section 4.1 (annealing reflow). It counts
    iterations of 128 images; here images are counted.
    """

    needs_partner = True
    needs_gaussian = True

    def __init__(self, annealing: Annealing) -> None:
        self.annealing = annealing

    def pair(
        self,
        x: Tensor,
        e: Tensor,
        conditions: Conditions,
        *,
        partner: Tensor | None = None,
        images_seen: int = 0,
        **_: object,
    ) -> Pairs:
        mixed, beta = require_partner(x, partner), self.annealing(images_seen)
        if beta != 0.0:
            # (1 - beta)(1 + beta) does not cancel near beta = 1.
            mixed = math.sqrt((1.0 - beta) * (1.0 + beta)) * mixed + beta * e
        return Pairs(x=x, e=mixed, conditions=conditions)
