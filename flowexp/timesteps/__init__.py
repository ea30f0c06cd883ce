"""Timestep distributions: how t is drawn in training."""

from flowexp.timesteps.base import TimestepDistribution, check_compatible
from flowexp.timesteps.beta import Beta
from flowexp.timesteps.cosmap import CosMap
from flowexp.timesteps.discrete import Fixed, UniformGrid
from flowexp.timesteps.log_uniform import LogUniform
from flowexp.timesteps.logit_normal import LogitNormal
from flowexp.timesteps.lognormal import LogNormal
from flowexp.timesteps.mode import Mode
from flowexp.timesteps.stratified import Stratified
from flowexp.timesteps.u_shaped import UShaped
from flowexp.timesteps.uniform import Uniform
from flowexp.timesteps.vp_uniform import VPUniform

__all__ = [
    "TimestepDistribution",
    "check_compatible",
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
