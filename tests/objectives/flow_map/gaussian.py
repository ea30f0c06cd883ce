"""The flow map of Gaussian data in closed form."""

import torch

from flowexp.broadcast import expand_as
from flowexp.models import Model
from flowexp.paths import Prediction


class GaussianFlowMap(Model):
    """``X_{t->r}(x) = alpha_r mean + (m_r/m_t)(x - alpha_t mean)`` for data N(mean, std^2).

    ``m^2 = alpha^2 std^2 + sigma^2``; mean and std are numbers, or one for each dimension.
    """

    is_flow_map = True

    def __init__(self, path, *, mean=0.0, std=0.5):
        self.path = path
        self.time_range = (path.schedule.t_min, path.schedule.t_max)
        self.mean, self.std = (torch.as_tensor(v, dtype=torch.float64) for v in (mean, std))

    def _at(self, t, x):
        c = self.path.schedule.coefficients(t)
        alpha, sigma, d_alpha, d_sigma = (
            expand_as(column, x) for column in (c.alpha, c.sigma, c.d_alpha, c.d_sigma)
        )
        m = torch.sqrt((alpha * self.std) ** 2 + sigma**2)
        d_m = (alpha * d_alpha * self.std**2 + sigma * d_sigma) / m
        return alpha, d_alpha, m, d_m

    def flow_map(self, x_t, t, r, **conditions):
        alpha, _, m, _ = self._at(t, x_t)
        alpha_r, _, m_r, _ = self._at(r, x_t)
        return alpha_r * self.mean + m_r / m * (x_t - alpha * self.mean)

    def average_velocity(self, x_t, t, r, **conditions):
        alpha, d_alpha, m, d_m = self._at(t, x_t)
        velocity = d_alpha * self.mean + d_m / m * (x_t - alpha * self.mean)
        equal = expand_as(t - r, x_t) == 0.0
        gap = torch.where(equal, 1.0, expand_as(t - r, x_t))
        return torch.where(equal, velocity, (x_t - self.flow_map(x_t, t, r)) / gap)

    def predict(self, x_t, t, **conditions):
        t = torch.as_tensor(t, dtype=torch.float64).expand(len(x_t))
        return Prediction.of_velocity(self.path, x_t, t, self.average_velocity(x_t, t, t))
