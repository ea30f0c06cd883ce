"""Laws of the times that are drawn in training: of one time, and of several for flow maps."""

from flowexp.timesteps.base import IntervalDistribution, Stratified, TimeLaw, TimestepDistribution
from flowexp.timesteps.beta import Beta, UShaped
from flowexp.timesteps.consistency import NoiseGrid, ShrinkingRatio
from flowexp.timesteps.curricula import (
    Curriculum,
    Doubling,
    FixedPoints,
    Halving,
    SquareRootGrowth,
)
from flowexp.timesteps.discrete import Fixed, UniformGrid
from flowexp.timesteps.dyadic import Dyadic
from flowexp.timesteps.intervals import Capped, GapAndEnd, Sorted, StartAndBelow, ToData
from flowexp.timesteps.normal import LogitNormal, LogNormal
from flowexp.timesteps.particles import ParticleTimes
from flowexp.timesteps.sd3 import CosMap, Mode
from flowexp.timesteps.sequences import Descending
from flowexp.timesteps.shifted import DimensionShifted, Shifted
from flowexp.timesteps.truncated import AtBoundary, LogStudent, Truncated
from flowexp.timesteps.uniform import LogUniform, Uniform, VPUniform

__all__ = [
    "TimeLaw",
    "TimestepDistribution",
    "IntervalDistribution",
    "AtBoundary",
    "Beta",
    "Capped",
    "CosMap",
    "Curriculum",
    "DimensionShifted",
    "Descending",
    "Doubling",
    "Dyadic",
    "Fixed",
    "FixedPoints",
    "GapAndEnd",
    "Halving",
    "LogitNormal",
    "LogNormal",
    "LogStudent",
    "LogUniform",
    "Mode",
    "NoiseGrid",
    "ParticleTimes",
    "Shifted",
    "ShrinkingRatio",
    "Sorted",
    "SquareRootGrowth",
    "StartAndBelow",
    "Stratified",
    "ToData",
    "Truncated",
    "Uniform",
    "UniformGrid",
    "UShaped",
    "VPUniform",
]
