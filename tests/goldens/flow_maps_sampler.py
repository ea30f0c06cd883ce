"""Goldens of few-step samplers: jumps along a grid, and jumps to the data with fresh noise."""

import torch

from flowexp.samplers import FlowMapSampler, Given
from tests.goldens.flow_maps_network import GoldenFlowMap, load, tensor


def check_sampler(case):
    g = load(case)
    grid, x1 = tensor(g, "t_grid"), tensor(g, "x1")
    recorded = tensor(g, "noise") if "noise" in g else None
    sampler = FlowMapSampler(
        steps=len(grid) - 1,
        time_grid=Given(values=grid.tolist()),
        noise={"ode": None, "sde": "restart"}[str(g["mode"])],
    )
    states, times = [], []

    def seen(t, x):
        times.append(t)
        states.append(x)

    def noise(step, like):
        return recorded[step]

    found = sampler.sample(GoldenFlowMap(g), x1, noise=noise, on_step=seen)
    torch.testing.assert_close(torch.stack(times), grid, rtol=0.0, atol=0.0)
    torch.testing.assert_close(torch.stack(states), tensor(g, "states"), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.x, tensor(g, "final"), rtol=1e-10, atol=1e-12)
    assert found.nfe.tolist() == [sampler.steps] * len(x1)


CHECKS = {"sampler": check_sampler}
