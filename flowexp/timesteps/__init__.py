"""Timestep distributions: how t is drawn in training."""

from flowexp.timesteps.base import IntervalDistribution, Stratified, TimeLaw, TimestepDistribution
from flowexp.timesteps.beta import Beta, UShaped
from flowexp.timesteps.discrete import Fixed, UniformGrid
from flowexp.timesteps.dyadic import Dyadic
from flowexp.timesteps.intervals import Sorted
from flowexp.timesteps.normal import LogitNormal, LogNormal
from flowexp.timesteps.sd3 import CosMap, Mode
from flowexp.timesteps.uniform import LogUniform, Uniform, VPUniform

__all__ = [
    "TimeLaw",
    "TimestepDistribution",
    "IntervalDistribution",
    "Beta",
    "CosMap",
    "Dyadic",
    "Fixed",
    "LogitNormal",
    "LogNormal",
    "LogUniform",
    "Mode",
    "Sorted",
    "Stratified",
    "UShaped",
    "Uniform",
    "UniformGrid",
    "VPUniform",
]
