"""Tiny masked autoregressive models, some with heads whose laws are known."""

import torch
from torch import nn

from flowexp.models import FlowModel
from flowexp.networks.mar import MAR
from flowexp.parameterizations import DataPrediction
from flowexp.paths import Linear, Path
from flowexp.samplers import Ancestral, Uniform
from flowexp.seeding import generator
from tests.networks.tiny import perturb

T_END = 0.4


class ConstantHead(nn.Module):
    """F is a constant: as predicted data it makes every token normal."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x, c_noise, *, context):
        return torch.full_like(x, self.value)


def network(*, side=2, patch=1, **options) -> MAR:
    sizes = {"hidden_size": 8, "depth": 1, "num_heads": 2, "head_width": 16, "head_depth": 1}
    image = {"img_resolution": side * patch, "in_channels": 1, "out_channels": 1}
    return MAR(patch_size=patch, **image | sizes | options).eval()


def model(net: MAR, *, path=None) -> FlowModel:
    return FlowModel(path or Path(Linear()), network=net, parameterization=DataPrediction())


def constant(value: float, **options) -> FlowModel:
    """A model whose tokens are ``N((1 - t) value, t^2)`` in each entry, t = ``T_END``."""
    net = network(**options)
    net.head = ConstantHead(value)
    return model(net)


def trained_like(*, seed=0, change=0.0, scale=1.0, **options) -> FlowModel:
    """A model with random weights, of order ``scale`` in the head's last layer, a bit changed."""
    torch.manual_seed(0)
    net = perturb(network(**options))
    rng = generator(seed, "change")
    with torch.no_grad():
        net.head.leave.weight.mul_(scale)
        for parameter in net.parameters():
            size = change * parameter.square().mean().sqrt()
            parameter.add_(size * torch.randn(parameter.shape, generator=rng))
    return model(net.eval())


def steps(count=1, *, t_end=T_END, **options) -> Ancestral:
    grid = Uniform(t_end=t_end)
    return Ancestral(steps=count, large=False, clip=None, time_grid=grid, **options)


class BatchNoise:
    """Noise of a whole batch at once, for samples that need not be the same in every batch."""

    def __init__(self, seed=0) -> None:
        self.seed = seed

    def __call__(self, step, like):
        rng = generator(self.seed, "noise", step)
        return torch.randn(like.shape, dtype=like.dtype, generator=rng)


def latents(batch, side=2, *, seed=0):
    shape = (batch, 1, side, side)
    return torch.randn(shape, generator=generator(seed, "latents"))
