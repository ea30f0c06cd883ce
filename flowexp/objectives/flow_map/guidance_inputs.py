"""Guidance as an input of the network: the scale and interval that each row is trained with."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from flowexp.objectives.flow_map.leaps import Leap
from flowexp.parameterizations.flow_map import GUIDANCE_INPUTS
from flowexp.requirements import Part, Parts, Unmet

__all__ = [
    "ConstantScale",
    "DrawnGuidance",
    "GuidanceInputs",
    "InverseScale",
    "NoGuidanceInputs",
    "UniformScale",
]


class GuidanceInputs(Part, ABC):
    """The guidance scale and interval that the network receives in training.

    Attributes:
        names: Names of the conditions.
        uniforms: Number of uniform random numbers per row that it needs.
    """

    names: tuple[str, ...] = ()
    uniforms: int = 0

    @abstractmethod
    def conditions(self, leap: Leap) -> dict[str, Tensor]:
        """The conditions by name, (B,) float64."""

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A parameterization that passes the network exactly these guidance inputs."""
        found = list(parts.parameterization.conditions_on)
        if {name for name in found if name in GUIDANCE_INPUTS} != set(self.names):
            others = [name for name in found if name not in GUIDANCE_INPUTS]
            name, fitting = type(self).__name__, ",".join([*others, *self.names])
            key = "parameterization.conditions_on"
            problem = (
                f"[{', '.join(found)}] does not fit {name}, which draws "
                f"{', '.join(self.names) or 'nothing'} in training."
            )
            yield Unmet(key, problem, f"Set {key}=[{fitting}].")


class NoGuidanceInputs(GuidanceInputs):
    """The network receives no guidance inputs."""

    def conditions(self, leap: Leap) -> dict[str, Tensor]:
        return {}


class DrawnGuidance(GuidanceInputs):
    """For every row a scale w with density ``~ w^-beta`` on [1, largest], and an interval of t.

    The interval is [U(0, 1/2), U(1/2, 1)]; rows with r = t have [0, 1].

    Args:
        largest: Largest scale, > 1; s_max + 1 of the paper.
        beta: Exponent: 1 = log-uniform; larger values favour small scales.
        interval: Whether an interval is drawn; otherwise the network receives the scale only.

    Raises:
        ValueError: largest or beta is out of range.

    Source: Geng et al., improved MeanFlow, 2025, arXiv 2512.02012: ``sample_cfg_scale`` and
    ``sample_cfg_interval`` of the authors' code.
    """

    def __init__(self, *, largest: float = 8.0, beta: float = 1.0, interval: bool = True) -> None:
        if not 1.0 < largest < math.inf:
            raise ValueError(f"largest is {largest}; expected a finite number above 1")
        if not math.isfinite(beta):
            raise ValueError(f"beta is {beta}; expected a finite number")
        self.largest = float(largest)
        self.beta = float(beta)
        self.interval = interval
        self.names = GUIDANCE_INPUTS if interval else GUIDANCE_INPUTS[:1]
        self.uniforms = 3 if interval else 1

    def scale(self, u: Tensor) -> Tensor:
        """The quantile function of the scale at ``u`` in (0, 1), float64."""
        width, power = math.log(self.largest), 1.0 - self.beta
        if power == 0.0:
            return torch.exp(u * width)
        return torch.exp(torch.log1p(u * math.expm1(power * width)) / power)

    def conditions(self, leap: Leap) -> dict[str, Tensor]:
        u = leap.uniforms["guidance_inputs"]
        found = {"guidance_scale": self.scale(u[:, 0])}
        if self.interval:
            apart = leap.r < leap.t
            found["guidance_start"] = torch.where(apart, 0.5 * u[:, 1], 0.0)
            found["guidance_end"] = torch.where(apart, 0.5 + 0.5 * u[:, 2], 1.0)
        return found


class ConstantScale(GuidanceInputs):
    """The same guidance scale w for all rows.

    Args:
        scale: w, > 0; 1 = not guided.
    """

    names = ("guidance_scale",)

    def __init__(self, *, scale: float = 1.0) -> None:
        if not scale > 0.0:
            raise ValueError(f"scale is {scale}; expected a positive number")
        self.scale = float(scale)

    def conditions(self, leap: Leap) -> dict[str, Tensor]:
        return {"guidance_scale": torch.full_like(leap.t, self.scale)}


class UniformScale(GuidanceInputs):
    """A guidance scale uniform on [smallest, largest] for every row; 0 < smallest <= largest."""

    names = ("guidance_scale",)
    uniforms = 1

    def __init__(self, *, smallest: float = 1.0, largest: float = 4.0) -> None:
        if not 0.0 < smallest <= largest:
            raise ValueError(f"need 0 < smallest <= largest, got {smallest} and {largest}")
        self.smallest = float(smallest)
        self.largest = float(largest)

    def conditions(self, leap: Leap) -> dict[str, Tensor]:
        u = leap.uniforms["guidance_inputs"][:, 0]
        return {"guidance_scale": self.smallest + u * (self.largest - self.smallest)}


class InverseScale(GuidanceInputs):
    """``1/w`` uniform on (0, 1) for every row: the default of the authors' code of TVM."""

    names = ("guidance_scale",)
    uniforms = 1

    def conditions(self, leap: Leap) -> dict[str, Tensor]:
        return {"guidance_scale": 1.0 / leap.uniforms["guidance_inputs"][:, 0]}
