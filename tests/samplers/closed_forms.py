"""Models whose predictions are known exactly; shared by sampler, guidance and golden tests."""

import math
from functools import partial

import torch
from torch import Tensor

from flowexp.broadcast import expand_as, factors, scaled
from flowexp.models import Model
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import Path, Prediction


class MixtureModel(Model):
    """The ideal model of a Gaussian mixture ``sum_k w_k N(m_k, diag(c_k^2))`` and Gaussian noise.

    With ``y_k = x_t - alpha m_k``, ``q_k = alpha^2 c_k^2 + sigma^2`` and posterior weights r_k:
    ``D = sum r_k (m_k + alpha c_k^2 y_k / q_k)``, ``e = sum r_k sigma y_k / q_k``; the velocity is
    assembled from these without a division by alpha or sigma.
    """

    def __init__(self, path: Path, w, m, c, *, time_range=None):
        self.path = path
        self.w = torch.as_tensor(w, dtype=torch.float64)
        self.m = torch.as_tensor(m, dtype=torch.float64)
        self.c = torch.as_tensor(c, dtype=torch.float64).expand_as(self.m)
        schedule = path.schedule
        self.time_range = time_range or (schedule.t_min, schedule.t_max)
        self.times = []

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        self.times.append(t)
        k = self.path.schedule.coefficients(t.to(torch.float64))
        x = x_t.reshape(x_t.shape[0], 1, -1)
        alpha, sigma, d_alpha, d_sigma = (
            expand_as(value, x) for value in (k.alpha, k.sigma, k.d_alpha, k.d_sigma)
        )
        y, q = x - alpha * self.m, (alpha * self.c) ** 2 + sigma**2
        r = torch.softmax(self.w.log() - 0.5 * (q.log() + y**2 / q).sum(-1), dim=1)[..., None]
        ratio = y / q
        d_data = d_alpha * (self.m + alpha * self.c**2 * ratio)
        # sigma' sigma first: the product is finite where sigma' alone is infinite.
        velocity = (r * (d_data + d_sigma * sigma * ratio)).sum(1).reshape(x_t.shape)
        return Prediction.of_velocity(self.path, x_t, t, velocity.to(x_t.dtype))


class DenoiserModel(Model):
    """A model given by its denoiser ``D(x; sigma)`` on the VE path, carried to any path."""

    def __init__(self, path: Path, denoiser, *, time_range=None):
        self.path = path
        self.denoiser = denoiser
        self.time_range = time_range or (path.schedule.t_min, path.schedule.t_max)
        self.sigmas = []

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        c = self.path.schedule.coefficients(t.to(torch.float64))
        nsr = c.sigma / c.alpha
        self.sigmas.append(nsr)
        data = self.denoiser(x_t / expand_as(c.alpha, x_t), expand_as(nsr, x_t))
        return Prediction.of_data(self.path, x_t, t, data)


def mixture_denoiser(w, mu, s):
    """``D(x; sigma)`` of an isotropic mixture; w, s are (K,), mu is (K, N)."""
    w, mu, s = (torch.as_tensor(value, dtype=torch.float64) for value in (w, mu, s))

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        flat = x.reshape(x.shape[0], 1, -1)
        level = sigma.reshape(-1, 1)
        q = s**2 + level**2
        distance = ((flat - mu) ** 2).sum(-1)
        r = torch.softmax(w.log() - 0.5 * mu.shape[1] * q.log() - 0.5 * distance / q, dim=1)
        pulled = (s[:, None] ** 2 * flat + level[..., None] ** 2 * mu) / q[..., None]
        return (r[..., None] * pulled).sum(1).reshape(x.shape)

    return denoise


def finite_set_denoiser(points: Tensor, *, D: float):
    """``D(x; sigma)`` of a finite data set under Student-t noise (Gaussian for D = inf)."""
    flat_points = points.reshape(points.shape[0], -1)
    dims = flat_points.shape[1]

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        flat = x.reshape(x.shape[0], 1, -1)
        level = sigma.reshape(-1, 1)
        distance = ((flat - flat_points) ** 2).sum(-1)
        if math.isinf(D):
            log_weight = -0.5 * distance / level**2
        else:
            log_weight = -0.5 * (dims + D) * torch.log(distance + D * level**2)
        return (torch.softmax(log_weight, dim=1) @ flat_points).reshape(x.shape)

    return denoise


class GaussianModel(MixtureModel):
    """The ideal model of N(mean, std^2) data, whose flow is known.

    ``x(t') = alpha' mean + S(t')/S(t) (x(t) - alpha mean)`` with ``S^2 = alpha^2 std^2 + sigma^2``.
    """

    def __init__(self, path: Path, *, mean: Tensor, std: float, time_range=None):
        flat = mean.reshape(1, -1)
        super().__init__(
            path, torch.ones(1), flat, torch.full_like(flat, std), time_range=time_range
        )
        self.mean, self.std = mean, std

    def exact(self, x: Tensor, t: float, t_end: float) -> Tensor:
        """The state at ``t_end`` of the trajectory through ``x`` at ``t``."""
        c = self.path.schedule.coefficients(torch.tensor([t, t_end], dtype=torch.float64))
        spread = torch.sqrt((c.alpha * self.std) ** 2 + c.sigma**2)
        return c.alpha[1] * self.mean + spread[1] / spread[0] * (x - c.alpha[0] * self.mean)


class GaussianTruth(Model):
    """The ideal model of N(mean, std^2) data whose network's output may be any prediction.

    Its velocity is ``alpha' m + slope (x_t - alpha m)`` with
    ``slope = (alpha alpha' s^2 + sigma sigma')/q`` and ``q = alpha^2 s^2 + sigma^2``.
    """

    def __init__(self, path: Path, *, mean: float, std: float, parameterization=None):
        self.path, self.mean, self.std = path, mean, std
        self.rule = parameterization or VelocityPrediction()
        self.time_range = self.rule.time_range(path.schedule)

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every coordinate of x_t."""
        c = self.path.schedule.coefficients(t)
        return c.alpha * self.mean, torch.sqrt((c.alpha * self.std) ** 2 + c.sigma**2)

    def velocity_at(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Drift and slope: the velocity is ``drift + slope x_t``."""
        c, (_, spread) = self.path.schedule.coefficients(times), self.marginal(times)
        slope = (c.alpha * c.d_alpha * self.std**2 + c.sigma * c.d_sigma) / spread**2
        return self.mean * (c.d_alpha - slope * c.alpha), slope

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        return self.at(t[None])[0](x_t)

    def at(self, times: Tensor):
        conversion = self.rule.conversion(self.path.schedule.coefficients(times))
        drift, slope = self.velocity_at(times)
        # The output from the velocity, by the inverse of the conversion; 0 where the velocity does
        # not depend on it, as on a score at sigma = 0.
        of = conversion.velocity
        divisor = torch.where(of.output == 0.0, torch.inf, of.output)
        state, rest = (slope - of.state) / divisor, drift / divisor
        rows = zip(factors(state), factors(rest), conversion.rows(), strict=True)
        return [partial(self._evaluate, *row) for row in rows]

    def _evaluate(self, state, rest, conversion, x_t, **conditions):
        output = scaled(x_t, state) + scaled(torch.ones_like(x_t), rest)
        return Prediction(self.path, x_t, output, conversion)
