"""The schedules under test, by name, and times inside each of them."""

import torch

from flowexp.paths import (
    VE,
    VP,
    Cosine,
    DiscreteVP,
    Linear,
    LinearVP,
    Polynomial,
    Schedule,
    SubVP,
    Trigonometric,
)

SCHEDULES: dict[str, Schedule] = {
    "linear": Linear(),
    "lipman": Linear(sigma_min=1e-4),
    "polynomial_2": Polynomial(n=2.0),
    "polynomial_half": Polynomial(n=0.5),
    "ve": VE(),
    "vp": VP(),
    "sub_vp": SubVP(),
    "sub_vp_from_0": SubVP(t_min=0.0),
    "linear_vp": LinearVP(),
    "discrete_vp": DiscreteVP(),
    "discrete_vp_linear": DiscreteVP(p=1.0, time_steps=40, beta_start=0.01, beta_end=0.3),
    "cosine": Cosine(),
    "trigonometric": Trigonometric(),
}


def inner_times(schedule: Schedule, n: int = 25) -> torch.Tensor:
    """Float64 times in [0.02, 0.98] of unit time, or over the noise levels of a VE path."""
    if schedule.t_max > 1.0:
        return torch.logspace(-2.0, 1.9, n, dtype=torch.float64)
    t = torch.linspace(0.02, 0.98, n, dtype=torch.float64)
    # between the levels of a table, where its slope jumps
    return t + 0.37 / schedule.time_steps if isinstance(schedule, DiscreteVP) else t
