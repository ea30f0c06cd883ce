"""Samplers: time grid, variable and update rule.

An argument outside its documented range is a ValueError; a base class documents its own arguments.
"""

from flowexp.samplers.adams_bashforth import DEIS, IPNDM, AdamsBashforth, IPNDMVariable
from flowexp.samplers.adaptive import IntegrationError
from flowexp.samplers.ancestral import Ancestral
from flowexp.samplers.arflow import ARFlowSampler
from flowexp.samplers.base import CountedModel, Sampler, Samples, StepObserver, TimeGrid
from flowexp.samplers.bellman import BellmanGrid
from flowexp.samplers.criteria import Aligned, Criterion, ExactGaussian
from flowexp.samplers.ddim import DDIM
from flowexp.samplers.dormand_prince import DormandPrince, LogDormandPrince
from flowexp.samplers.dpm_solver import DPMSolver, SinglestepDPMSolver
from flowexp.samplers.dpm_solver_v3 import DPMSolverV3
from flowexp.samplers.editing import Edited, Editing
from flowexp.samplers.edm_heun import DPM2, EDMHeun
from flowexp.samplers.field import Field, Interval, Node, NoiseToSignal, Time, Variable
from flowexp.samplers.fixed_step import FixedStepSampler
from flowexp.samplers.flow_map import FlowMapSampler
from flowexp.samplers.inversion import Inversion
from flowexp.samplers.mar import MaskedAutoregressive
from flowexp.samplers.model_statistics import (
    ConstantStatistics,
    ModelStatistics,
    ReferenceStatistics,
    Statistics,
    StoredStatistics,
)
from flowexp.samplers.multistep import MultistepSampler
from flowexp.samplers.noise_grids import EDMGrid, IDDPMGrid, LogSNR, VPGrid
from flowexp.samplers.perturbations import Churn, Perturbation, StateNoise
from flowexp.samplers.reconstruction import Reconstruct
from flowexp.samplers.rectified_flow import LaggedEuler, Reinterpolation
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
from flowexp.samplers.second_order_taylor import FireFlow, RFSolver
from flowexp.samplers.speculative import Speculative
from flowexp.samplers.time_grids import (
    DimensionShifted,
    Given,
    InsetUniform,
    Natural,
    PowerGrid,
    Quadratic,
    Shifted,
    TokenShifted,
    Uniform,
)
from flowexp.samplers.towards_source import TowardsSource
from flowexp.samplers.unipc import UniPC
from flowexp.samplers.velocity_blocks import VelocityBlocks
from flowexp.seeding import StackedGenerators

__all__ = [
    "Reconstruct",
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
    "RFSolver",
    "FireFlow",
    "EDMHeun",
    "DDIM",
    "FlowMapSampler",
    "DPM2",
    "AdamsBashforth",
    "Ancestral",
    "ARFlowSampler",
    "IPNDM",
    "IPNDMVariable",
    "DEIS",
    "MultistepSampler",
    "DPMSolver",
    "SinglestepDPMSolver",
    "UniPC",
    "DPMSolverV3",
    "Statistics",
    "ModelStatistics",
    "StoredStatistics",
    "ReferenceStatistics",
    "ConstantStatistics",
    "DormandPrince",
    "LogDormandPrince",
    "LaggedEuler",
    "VelocityBlocks",
    "MaskedAutoregressive",
    "Speculative",
    "Criterion",
    "ExactGaussian",
    "Aligned",
    "Reinterpolation",
    "IntegrationError",
    "Inversion",
    "TowardsSource",
    "Editing",
    "Edited",
    "TimeGrid",
    "BellmanGrid",
    "Natural",
    "Uniform",
    "InsetUniform",
    "Quadratic",
    "Shifted",
    "TokenShifted",
    "DimensionShifted",
    "Given",
    "EDMGrid",
    "LogSNR",
    "VPGrid",
    "IDDPMGrid",
    "PowerGrid",
    "Variable",
    "Time",
    "NoiseToSignal",
    "Perturbation",
    "Churn",
    "StateNoise",
    "StackedGenerators",
]
