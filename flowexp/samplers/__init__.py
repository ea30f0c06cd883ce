"""Samplers: time grid, variable and update rule."""

from flowexp.samplers.adams_bashforth import AdamsBashforth
from flowexp.samplers.adaptive import IntegrationError
from flowexp.samplers.base import CountedModel, Sampler, Samples, StepObserver, TimeGrid
from flowexp.samplers.ddim import DDIM
from flowexp.samplers.dormand_prince import DormandPrince
from flowexp.samplers.dpm2 import DPM2
from flowexp.samplers.edm_heun import EDMHeun
from flowexp.samplers.field import Field, Interval, Node
from flowexp.samplers.fixed_step import FixedStepSampler
from flowexp.samplers.log_dormand_prince import LogDormandPrince
from flowexp.samplers.noise_grids import EDMGrid, IDDPMGrid, LogSNR, VPGrid
from flowexp.samplers.perturbations import Churn, Perturbation, StateNoise
from flowexp.samplers.runge_kutta import (
    RK4,
    Euler,
    Heun,
    Heun3,
    Midpoint,
    Ralston,
    RungeKutta,
    SecondOrder,
    Tableau,
    ThreeEighths,
)
from flowexp.samplers.stacked_generators import StackedGenerators
from flowexp.samplers.time_grids import Given, Natural, Quadratic, Shifted, Uniform
from flowexp.samplers.variables import NoiseToSignal, Time, Variable

__all__ = [
    "CountedModel",
    "Sampler",
    "Samples",
    "StepObserver",
    "FixedStepSampler",
    "Field",
    "Interval",
    "Node",
    "RungeKutta",
    "Tableau",
    "Euler",
    "Heun",
    "Midpoint",
    "Ralston",
    "SecondOrder",
    "Heun3",
    "RK4",
    "ThreeEighths",
    "EDMHeun",
    "DDIM",
    "DPM2",
    "AdamsBashforth",
    "DormandPrince",
    "LogDormandPrince",
    "IntegrationError",
    "TimeGrid",
    "Natural",
    "Uniform",
    "Quadratic",
    "Shifted",
    "Given",
    "EDMGrid",
    "LogSNR",
    "VPGrid",
    "IDDPMGrid",
    "Variable",
    "Time",
    "NoiseToSignal",
    "Perturbation",
    "Churn",
    "StateNoise",
    "StackedGenerators",
]
