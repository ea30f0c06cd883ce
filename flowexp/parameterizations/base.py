"""The protocol of parameterizations: how the raw network becomes a prediction."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowexp.networks.foreign import call_network
from flowexp.paths import Coefficients, Conversion, Schedule
from flowexp.paths.conversions import FromNoise
from flowexp.requirements import Part, Parts, Unmet, all_of, within_signal

__all__ = [
    "BetweenLevels",
    "Conditions",
    "NetworkInputs",
    "Parameterization",
    "PredictsNoise",
    "bounded_input_scale",
    "rows_of",
    "times_between",
]

Conditions = Mapping[str, Tensor | None]
"""Tensors that belong to the rows of a batch, by name: ``labels``, ``tokens``, ``velocity`` ..."""


def rows_of(conditions: Conditions, rows: Tensor | slice) -> dict[str, Tensor | None]:
    """The conditions of some rows, given by their indices, a mask or a slice."""
    return {name: None if c is None else c[rows] for name, c in conditions.items()}


@dataclass(frozen=True)
class NetworkInputs:
    """The state's factor and the time condition of a network; float64, of the shape of t."""

    c_in: Tensor
    c_noise: Tensor


class Parameterization(Part, ABC):
    """The rule that turns the raw network F into a prediction on any path.

    Constructors raise ``ValueError`` for an argument outside the range that their docstring states.

    Attributes:
        needs_signal: Whether the network cannot be evaluated where alpha is 0, at pure source.
        corrects_velocity: Whether the network is given a velocity beside the state, and so is
            trained only by an objective that provides one.
        is_flow_map: Whether F also determines the state at a second time; see
            :class:`flowexp.parameterizations.flow_map.FlowMap`.
        maps_to_data_only: Whether that second time can only be 0.
        conditions_on: Names of the numbers that the network is conditioned on besides c_noise.
        reads_weights_of: Other parameterizations, by their ``_target_``, whose networks can be used
            unchanged: the output of the network has the same meaning.
        velocity_head: Whether half of the network's output is a second prediction of the velocity,
            for training only.
        score_head: Whether half of the network's output is a score, of noise that the path's own
            formulas do not know.
    """

    needs_signal: bool = False
    corrects_velocity: bool = False
    is_flow_map: bool = False
    maps_to_data_only: bool = False
    conditions_on: Sequence[str] = ()
    reads_weights_of: tuple[str, ...] = ()
    velocity_head: bool = False
    score_head: bool = False

    def input_channels(self, channels: int) -> int:
        """How many channels the network takes of data with ``channels``."""
        return 2 * channels if self.corrects_velocity else channels

    def output_channels(self, channels: int) -> tuple[int, ...]:
        """How many channels the network may give of data with ``channels``."""
        return (channels,)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network with the right channels, and no time at which formulas are singular."""
        name = type(self).__name__
        yield from all_of(
            self._channels(parts, "in"),
            self._channels(parts, "out"),
            self._scalars(parts),
            within_signal(parts, name=name, group="parameterization") if self.needs_signal else (),
        )

    def _channels(self, parts: Parts, side: str) -> Iterator[Unmet]:
        key, channels = f"network.{side}_channels", parts.space.channels
        found = parts.network.in_channels if side == "in" else parts.network.out_channels
        fitting = self.output_channels(channels)
        allowed = (self.input_channels(channels),) if side == "in" else fitting
        if found is not None and found not in allowed:
            name, data = type(self).__name__, type(parts.space).__name__
            problem = f"{found} does not fit {name} and {data}, which has {channels} channels."
            yield Unmet(key, problem, f"Set {key}={' or '.join(map(str, allowed))}.")

    def _scalars(self, parts: Parts) -> Iterator[Unmet]:
        found, expected = tuple(parts.network.scalars), tuple(self.conditions_on)
        name, words = type(self).__name__, ", ".join(expected) or "no numbers"
        if expected and not parts.network.takes_scalars:
            problem = f"it takes no scalars, but {name} conditions the network on {words}."
            remedy = "Take one that does, such as network=unet or network=dit."
            yield Unmet("network", problem, remedy)
        elif set(found) != set(expected):
            problem = f"{list(found)} does not fit {name}, which conditions the network on {words}."
            remedy = f"Set network.scalars=[{','.join(expected)}]."
            yield Unmet("network.scalars", problem, remedy)

    @abstractmethod
    def inputs(self, schedule: Schedule, t: Tensor, c: Coefficients) -> NetworkInputs:
        """Input scale and time condition at float64 times ``t``, whose coefficients are ``c``."""

    @abstractmethod
    def conversion(self, c: Coefficients) -> Conversion:
        """How F becomes data, noise and velocity."""

    def conversion_in(self, c: Coefficients, *, training: bool) -> Conversion:
        """The conversion in training or evaluation mode; the same unless overridden."""
        return self.conversion(c)

    def evaluate(
        self, network: nn.Module, x: Tensor, c_noise: Tensor, conditions: Conditions
    ) -> Tensor:
        """The output F at the scaled state ``x``, (B, ...), and ``c_noise``, (B,), both float32.

        Override this where the network takes more than the state, or gives other than F.
        """
        return call_network(network, x, c_noise, conditions)

    def time_range(self, schedule: Schedule) -> tuple[float, float]:
        """The times (low, high) between which samplers may evaluate the velocity.

        The schedule's own range, narrowed where this parameterization's formulas are singular.
        """
        return schedule.t_min, schedule.t_max

    def nearest_time(self, schedule: Schedule, t: Tensor) -> Tensor:
        """See :meth:`flowexp.models.Model.nearest_time`."""
        return t


class BetweenLevels(Parameterization):
    """Evaluated by samplers at noise levels in [sigma_min, sigma_max] only, both > 0."""

    def __init__(self, *, sigma_min: float, sigma_max: float) -> None:
        if not 0.0 < sigma_min < sigma_max:
            raise ValueError(
                f"need 0 < sigma_min < sigma_max, got sigma_min={sigma_min}, sigma_max={sigma_max}"
            )
        self.sigma_min = float(sigma_min)
        self.sigma_max = float(sigma_max)

    def time_range(self, schedule: Schedule) -> tuple[float, float]:
        return times_between(schedule, self.sigma_min, self.sigma_max)


class PredictsNoise(Parameterization):
    """F is the noise: data and velocity are infinite where alpha is 0."""

    needs_signal = True

    def conversion(self, c: Coefficients) -> Conversion:
        return FromNoise(c)


def times_between(schedule: Schedule, nsr_min: float, nsr_max: float) -> tuple[float, float]:
    """The part (low, high) of a schedule's range with ``sigma/alpha`` in [nsr_min, nsr_max]."""
    ends = torch.tensor([nsr_min, nsr_max], dtype=torch.float64)
    low, high = schedule.time_at_nsr(ends).tolist()
    return max(schedule.t_min, low), min(schedule.t_max, high)


def bounded_input_scale(c: Coefficients) -> Tensor:
    """``1 / max(1, sqrt(alpha^2 + sigma^2))``: 1 on linear, VP and trigonometric paths.

    On the VE path it is ``1 / sqrt(1 + sigma^2)``, the input scale of EDM's VP and iDDPM
    preconditioners, without which inputs reach a standard deviation of 80.
    """
    return torch.rsqrt((c.alpha**2 + c.sigma**2).clamp(min=1.0))
