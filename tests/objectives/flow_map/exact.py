"""Data whose flow map is known: a Gaussian, and a mixture of Gaussians on the line."""

import math

import torch
from torch import Tensor

from flowexp.broadcast import expand_as
from flowexp.models import Model, WrappedModel
from flowexp.paths import Path, Prediction
from tests.samplers.closed_forms import MixtureModel


class ExactMap(Model):
    """The exact flow map; a subclass gives u at r < t, the ideal ``field`` the velocity."""

    is_flow_map = True

    def __init__(self, path: Path, field: MixtureModel):
        self.path, self.field, self.time_range = path, field, field.time_range

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        return self.field.predict(x_t, t)


class GaussianMap(ExactMap):
    """``X_{t->r}(x) = alpha_r m + (S_r/S_t)(x - alpha_t m)`` with ``S^2 = alpha^2 s^2 + sigma^2``.

    Data are N(m, s^2) per coordinate; m and s are numbers, or one for each dimension.
    """

    def __init__(self, path: Path, *, mean=0.0, std=0.5):
        self.mean = torch.as_tensor(mean, dtype=torch.float64)
        self.std = torch.as_tensor(std, dtype=torch.float64).expand_as(self.mean)
        super().__init__(
            path, MixtureModel(path, [1.0], self.mean.reshape(1, -1), self.std.reshape(1, -1))
        )

    def data(self, n: int, *, rng: torch.Generator) -> Tensor:
        noise = torch.randn(n, len(self.mean), dtype=torch.float64, generator=rng)
        return self.mean + self.std * noise

    def average_velocity(self, x_t, t, r, **conditions):
        schedule = self.path.schedule
        t, r = torch.broadcast_tensors(t, r)
        a, b = schedule.coefficients(t), schedule.coefficients(r)
        alpha, sigma = schedule.mean_slopes(t, r)
        columns = (a.alpha, a.sigma, b.alpha, b.sigma, alpha, sigma)
        alpha_t, sigma_t, alpha_r, sigma_r, alpha, sigma = (expand_as(c, x_t) for c in columns)
        s_t = torch.sqrt((alpha_t * self.std) ** 2 + sigma_t**2)
        s_r = torch.sqrt((alpha_r * self.std) ** 2 + sigma_r**2)
        squares = self.std**2 * alpha * (alpha_t + alpha_r) + sigma * (sigma_t + sigma_r)
        return alpha * self.mean + squares / (s_t + s_r) / s_t * (x_t - alpha_t * self.mean)


class MixtureMap(ExactMap):
    """``X_{t->r} = F_r^-1(F_t(x))``, F_t the distribution function at t; states are (B, 1).

    Trajectories on the line do not cross, so the flow keeps quantiles.
    """

    def __init__(self, path: Path, *, w, m, c):
        self.w, self.m, self.c = (torch.as_tensor(v, dtype=torch.float64) for v in (w, m, c))
        super().__init__(path, MixtureModel(path, w, self.m[:, None], self.c[:, None]))

    def data(self, n: int, *, rng: torch.Generator) -> Tensor:
        which = torch.multinomial(self.w, n, replacement=True, generator=rng)
        noise = torch.randn(n, dtype=torch.float64, generator=rng)
        return (self.m[which] + self.c[which] * noise)[:, None]

    def tail(self, x: Tensor, t: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """``P(side X_t <= side x)`` and its derivative in x, (B, 1); ``side`` is 1 or -1."""
        k = self.path.schedule.coefficients(t.expand(len(x)))
        alpha, sigma = k.alpha[:, None], k.sigma[:, None]
        q = torch.sqrt((alpha * self.c) ** 2 + sigma**2)
        z = (x - alpha * self.m) / q
        below = 0.5 * torch.erfc(-side * z / math.sqrt(2.0))
        density = torch.exp(-0.5 * z**2) / (q * math.sqrt(2.0 * math.pi))
        return (below * self.w).sum(1, keepdim=True), side * (density * self.w).sum(1, keepdim=True)

    def flow_map(self, x_t, t, r, **conditions):
        lower, _ = self.tail(x_t.detach(), t.detach(), torch.ones_like(x_t.detach()))
        side = torch.where(lower < 0.5, 1.0, -1.0)
        wanted, _ = self.tail(x_t, t, side)
        x = self.root(wanted.detach(), r.detach(), side)
        # Newton's step from the root is the root, and its derivative the implicit function's.
        below, slope = self.tail(x, r, side)
        return x - (below - wanted) / slope.detach()

    def root(self, wanted: Tensor, r: Tensor, side: Tensor) -> Tensor:
        """x with ``P(side X_r <= side x) = wanted``: bisection, then Newton."""
        reach = 12.0 * (1.0 + float(self.m.abs().max())) * max(1.0, float(r.max()))
        low, high = torch.full_like(wanted, -reach), torch.full_like(wanted, reach)
        for _ in range(24):
            middle = 0.5 * (low + high)
            right = (self.tail(middle, r, side)[0] < wanted) == (side > 0.0)
            low, high = torch.where(right, middle, low), torch.where(right, high, middle)
        x = 0.5 * (low + high)
        for _ in range(4):
            below, slope = self.tail(x, r, side)
            x = x - (below - wanted) / slope
        return x

    def average_velocity(self, x_t, t, r, **conditions):
        t, r = torch.broadcast_tensors(t, r)
        gap = expand_as(t - r, x_t)
        apart = gap > 0.0
        mean = (x_t - self.flow_map(x_t, t, r)) / torch.where(apart, gap, 1.0)
        return torch.where(apart, mean, self.velocity(x_t, t))


class Perturbed(WrappedModel):
    """``u + sum_j theta_j phi_j(x, t, r)``; its average "exact" is the model itself."""

    COUNT = 6

    def __init__(self, model: ExactMap, theta: Tensor):
        super().__init__(model)
        self.theta = theta

    def average_velocity(self, x_t, t, r, **conditions):
        x, (t, r) = x_t, (expand_as(time, x_t) for time in torch.broadcast_tensors(t, r))
        functions = (
            torch.ones_like(x),
            torch.tanh(x),
            torch.cos(2.0 * x) * t,
            r * x,
            (t - r) * torch.sin(x),
            torch.exp(-(x**2)) * (1.0 + r),
        )
        change = sum(a * phi for a, phi in zip(self.theta, functions, strict=True))
        return self.model.average_velocity(x_t, t.flatten(), r.flatten()) + change

    def predict(self, x_t, t, **conditions):
        velocity = self.average_velocity(x_t, t, t)
        return Prediction.of_velocity(self.path, x_t, t, velocity)

    def average(self, name):
        assert name == "exact"
        return self.model
