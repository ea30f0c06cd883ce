"""Timestep distributions: how t is drawn in training."""

from flowexp.timesteps.base import Stratified, TimestepDistribution
from flowexp.timesteps.beta import Beta, UShaped
from flowexp.timesteps.discrete import Fixed, UniformGrid
from flowexp.timesteps.normal import LogitNormal, LogNormal
from flowexp.timesteps.sd3 import CosMap, Mode
from flowexp.timesteps.uniform import LogUniform, Uniform, VPUniform

__all__ = [
    "TimestepDistribution",
    "Beta",
    "CosMap",
    "Fixed",
    "LogitNormal",
    "LogNormal",
    "LogUniform",
    "Mode",
    "Stratified",
    "UShaped",
    "Uniform",
    "UniformGrid",
    "VPUniform",
]
