"""Sources, the distributions of e: Gaussian, and multivariate Student-t, perhaps clipped."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.paths.base import Source
from flowexp.requirements import Extended

__all__ = ["ClippedStudentT", "Gaussian", "RadiusClippedStudentT", "StudentT", "beta_radius"]

# Added under both roots of the radius by the authors of PFGM++.
_GUARD = 1e-8


class Gaussian(Source):
    """Standard normal source, e ~ N(0, I)."""

    is_gaussian = True
    has_density = True

    def sample(
        self, shape: Sequence[int], *, rng: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=dtype, device=rng.device)

    def log_density(self, e: Tensor) -> Tensor:
        """``-(|e|^2 + N ln 2 pi) / 2``."""
        return -0.5 * (e.square().sum(1) + e.shape[1] * math.log(2.0 * math.pi))


class StudentT(Source):
    """Multivariate Student-t source with D degrees of freedom and identity scale.

    ``e = g / sqrt(chi2_D / D)`` with one ``g ~ N(0, I_N)`` and one ``chi2_D`` per sample, drawn and
    divided in float64. Then ``|e|^2 / N ~ F(N, D)``, each coordinate is t_D, and
    ``E|e|^2 / N = D / (D - 2)`` for D > 2, infinite otherwise. D = inf is normal, bit for bit the
    draws of :class:`Gaussian`.

    Args:
        D: Degrees of freedom, a positive real or ``inf``.

    Source: Xu et al., PFGM++, 2023, arXiv 2302.04265. Its perturbation kernel
    ``p_r(x_t | x) ~ (|x_t - x|^2 + r^2)^(-(N + D) / 2)`` with ``r = sigma sqrt(D)`` is exactly this
    times sigma. The authors' code draws the radius from a Beta distribution clipped to
    [1e-3, 1 - 1e-3] in training (:class:`~flowexp.paths.ClippedStudentT`); this class follows the
    paper. Sampling starts at ``sigma(t_max) e``; the authors' code starts at scale 80 for all
    images up to 3 x 256 x 256 even where its time grid starts elsewhere (LSUN at 380), which is not
    followed: the scale of the prior is the start of the time grid.
    """

    has_density = True

    def __init__(self, D: Extended) -> None:
        if not isinstance(D, int | float) or not D > 0:
            raise ValueError(f"D is {D!r}; the degrees of freedom must be a positive number or inf")
        self.D = float(D)
        self.is_gaussian = math.isinf(self.D)

    def sample(
        self, shape: Sequence[int], *, rng: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        g = torch.randn(*shape, generator=rng, dtype=dtype, device=rng.device)
        if self.is_gaussian:
            return g
        # chi2_D = 2 Gamma(D / 2)
        mean_square = _gamma(self.D / 2.0, shape[0], rng=rng) * (2.0 / self.D)
        wide = g.to(torch.float64)
        return (wide / expand_as(torch.sqrt(mean_square), wide)).to(dtype)

    def log_density(self, e: Tensor) -> Tensor:
        """``ln G((N + D)/2) - ln G(D/2) - (N ln(pi D) + (N + D) ln(1 + |e|^2/D)) / 2``, G gamma."""
        if self.is_gaussian:
            return Gaussian().log_density(e)
        n, d = e.shape[1], self.D
        constant = (
            math.lgamma(0.5 * (n + d)) - math.lgamma(0.5 * d) - 0.5 * n * math.log(math.pi * d)
        )
        return constant - 0.5 * (n + d) * torch.log1p(e.square().sum(1) / d)


def beta_radius(beta: Tensor, *, D: float, low: float, high: float) -> Tensor:
    """``|e| = sqrt(D) sqrt(B / (1 - B + 1e-8) + 1e-8)`` with B clipped to [low, high].

    ``beta`` are draws of ``B ~ Beta(N/2, D/2)``, any shape, float64; D is finite.

    Source: Newbeeer/pfgmpp, training/loss.py (r = sigma sqrt(D), here divided by sigma).
    """
    clipped = beta.clamp(min=low, max=high)
    return math.sqrt(D) * torch.sqrt(clipped / (1.0 - clipped + _GUARD) + _GUARD)


class ClippedStudentT(StudentT):
    """The source the PFGM++ code trains on: radius from a clipped Beta draw, uniform direction.

    ``|e|`` of :func:`beta_radius` with ``B ~ Beta(N/2, D/2)``, in float64. The clip cuts the tail
    off: for N = 3072 it changes 92, 78, 45 and 7 % of the draws for D = 1, 2, 4 and 8 and none for
    D between 32 and 2^18; where D is near 1000 N, half of the draws are raised at the low end.
    As in that code, sampling starts without the clip. D = inf is the normal distribution.

    Args:
        low: Smallest B, in [0, 1).
        high: Largest B, in (low, 1].

    Source: Newbeeer/pfgmpp, training/loss.py. Xu et al., PFGM++, 2023, arXiv 2302.04265 states no
    clip.
    """

    def __init__(self, D: Extended, *, low: float = 1e-3, high: float = 1.0 - 1e-3) -> None:
        super().__init__(D)
        if not 0.0 <= low < high <= 1.0:
            raise ValueError(f"need 0 <= low < high <= 1, got low={low}, high={high}")
        self.low = float(low)
        self.high = float(high)

    def sample(
        self, shape: Sequence[int], *, rng: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        if self.is_gaussian:
            return super().sample(shape, rng=rng, dtype=dtype)
        g = torch.randn(*shape, generator=rng, dtype=dtype, device=rng.device)
        half_n = 0.5 * g[0].numel() if len(g) else 0.5
        n_part = _gamma(half_n, shape[0], rng=rng)
        d_part = _gamma(0.5 * self.D, shape[0], rng=rng)
        radius = beta_radius(n_part / (n_part + d_part), D=self.D, low=self.low, high=self.high)
        return _with_norm(g, radius).to(dtype)

    def prior(
        self, shape: Sequence[int], *, rng: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        return super().sample(shape, rng=rng, dtype=dtype)


class RadiusClippedStudentT(StudentT):
    """Student-t in training; in sampling the starting radius is clipped, as PFGM does.

    ``scale |e|`` of a start is clipped to ``[smallest, largest]``: for D = 1 the distribution has
    no mean, and a start a thousand times beyond the data is useless.

    Args:
        D: See :class:`StudentT`; ``inf`` is normal, unclipped.
        scale: Noise level at which sampling starts (z_max), > 0.
        smallest: Smallest radius of a start, >= 0, in the unit of the data.
        largest: Largest one, > smallest.

    Source: Xu et al., PFGM, 2022, arXiv 2209.11178, section 3.3; Newbeeer/Poisson_flow, methods.py
    (scale, largest = 40, 3000 for CIFAR-10; 60, 6000 CelebA 64; 100, 30000 LSUN bedroom 256;
    smallest 1 for all).
    """

    def __init__(self, D: Extended, *, scale: float, smallest: float, largest: float) -> None:
        super().__init__(D)
        if not (scale > 0.0 and 0.0 <= smallest < largest):
            raise ValueError(
                f"need scale > 0 and 0 <= smallest < largest, got scale={scale}, "
                f"smallest={smallest}, largest={largest}"
            )
        # The clip gathers starts on two spheres.
        self.has_density = self.is_gaussian
        self.scale = float(scale)
        self.smallest = float(smallest)
        self.largest = float(largest)

    def prior(
        self, shape: Sequence[int], *, rng: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        e = self.sample(shape, rng=rng, dtype=dtype)
        if self.is_gaussian:
            return e
        norm = torch.linalg.vector_norm(e.flatten(1), dim=1, dtype=torch.float64)
        allowed = norm.clamp(min=self.smallest / self.scale, max=self.largest / self.scale)
        return _with_norm(e, allowed).to(dtype)

    def log_density(self, e: Tensor) -> Tensor:
        """None, unless D = inf: the clip gathers starts on two spheres."""
        if self.is_gaussian:
            return super().log_density(e)
        raise ValueError(f"the starts of {self!r} have no density, since their radius is clipped")


def _gamma(concentration: float, count: int, *, rng: torch.Generator) -> Tensor:
    # torch.distributions takes no generator, this function does.
    full = torch.full((count,), concentration, dtype=torch.float64, device=rng.device)
    return torch._standard_gamma(full, generator=rng)


def _with_norm(g: Tensor, norm: Tensor) -> Tensor:
    """The directions of ``g`` at given norms, float64."""
    wide = g.to(torch.float64)
    own = torch.linalg.vector_norm(wide.flatten(1), dim=1)
    return wide * expand_as(norm / own, wide)
