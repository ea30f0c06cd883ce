"""Sources, the distributions of e: Gaussian, and multivariate Student-t."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.paths.base import Source

__all__ = ["Gaussian", "StudentT", "source_with"]


class Gaussian(Source):
    """Standard normal source, e ~ N(0, I)."""

    is_gaussian = True

    def sample(
        self, shape: Sequence[int], *, rng: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=dtype, device=rng.device)


class StudentT(Source):
    """Multivariate Student-t source with D degrees of freedom and identity scale.

    ``e = g / sqrt(chi2_D / D)`` with one ``g ~ N(0, I_N)`` and one ``chi2_D`` per sample, drawn and
    divided in float64. Then ``|e|^2 / N ~ F(N, D)``, each coordinate is t_D, and
    ``E|e|^2 / N = D / (D - 2)`` for D > 2, infinite otherwise. D = inf is normal, bit for bit the
    draws of :class:`Gaussian`.

    Args:
        D: Degrees of freedom, a positive real or ``inf``.

    Raises:
        ValueError: D is not positive.

    Source: Xu et al., PFGM++, 2023, arXiv 2302.04265. Its perturbation kernel
    ``p_r(x_t | x) ~ (|x_t - x|^2 + r^2)^(-(N + D) / 2)`` with ``r = sigma sqrt(D)`` is exactly this
    times sigma. The authors' code draws the radius from a Beta distribution clipped to
    [1e-3, 1 - 1e-3] in training (:class:`~flowexp.paths.ClippedStudentT`); this class follows the
    paper. Sampling starts at ``sigma(t_max) e``; the authors' code starts at scale 80 for all
    images up to 3 x 256 x 256 even where its time grid starts elsewhere (LSUN at 380), which is not
    followed: the scale of the prior is the start of the time grid.
    """

    def __init__(self, D: float) -> None:
        _require_degrees_of_freedom(D)
        self.D = float(D)
        self.is_gaussian = math.isinf(self.D)

    def sample(
        self, shape: Sequence[int], *, rng: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        g = torch.randn(*shape, generator=rng, dtype=dtype, device=rng.device)
        if self.is_gaussian:
            return g
        half = torch.full((shape[0],), self.D / 2.0, dtype=torch.float64, device=rng.device)
        # chi2_D = 2 Gamma(D / 2); torch.distributions takes no generator, this function does.
        mean_square = torch._standard_gamma(half, generator=rng) * (2.0 / self.D)
        wide = g.to(torch.float64)
        return (wide / expand_as(torch.sqrt(mean_square), wide)).to(dtype)


def source_with(D: float) -> Source:
    """The source that ``path.D`` names: Gaussian for ``inf``, Student-t otherwise.

    Raises:
        ValueError: D is not a positive number or inf.
    """
    _require_degrees_of_freedom(D)
    return Gaussian() if math.isinf(D) else StudentT(D)


def _require_degrees_of_freedom(D: object) -> None:
    if not isinstance(D, int | float) or not D > 0:
        raise ValueError(f"D is {D!r}; the degrees of freedom must be a positive number or inf")
