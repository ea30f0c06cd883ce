"""Goldens of MeanFlow: its two laws of times, as quantile maps of the authors' draws (float32)."""

import torch

from flowexp.paths import Linear
from flowexp.timesteps import Capped, LogitNormal, Sorted
from tests.goldens.flow_maps_network import load, tensor


def draws(g):
    """Uniform numbers of t and r, and the rows that the authors' draws put on the diagonal."""
    normal = torch.stack([tensor(g, "normal_t"), tensor(g, "normal_r")], dim=1).double()
    return torch.special.ndtr(normal), tensor(g, "uniform") < 1.0 - float(g["ratio_r_ne_t"])


def law_of(g, which):
    return LogitNormal(mean=float(g[f"P_mean_{which}"]), std=float(g[f"P_std_{which}"]))


def compare(g, times, equal):
    """The reference draws which rows have r = t; here it is a fixed number of them."""
    t, r = times.unbind(1)
    torch.testing.assert_close(t.float(), tensor(g, "t"), rtol=2e-6, atol=1e-7)
    r = torch.where(equal, t, r)
    torch.testing.assert_close(r.float(), tensor(g, "r"), rtol=2e-6, atol=1e-7)


def check_v0(case):
    g = load(case)
    u, equal = draws(g)
    compare(g, Sorted(law_of(g, "t")).quantile(u, schedule=Linear()), equal)


def check_v1(case):
    g = load(case)
    u, equal = draws(g)
    law = Capped(start=law_of(g, "t"), end=law_of(g, "r"))
    compare(g, law.quantile(u, schedule=Linear()), equal)


CHECKS = {"time_sampler_v0": check_v0, "time_sampler_v1": check_v1}
