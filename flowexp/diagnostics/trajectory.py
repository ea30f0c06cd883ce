"""Finely simulated trajectories in the coordinates of the linear path, which all paths share.

With ``tau = sigma / (alpha + sigma)`` and ``z = x_t / (alpha + sigma)`` every path becomes
``z = (1 - tau) x + tau e``, and the velocity there is ``dz/dtau = e - x``: the predicted noise
minus the predicted data. On the linear path nothing changes; on VE, tau = sigma/(1 + sigma). The
straightness of a model's trajectories is then a property of the model, not of its schedule.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.diagnostics.base import ModelMetric, Setting, records_of
from flowexp.metrics.protocol import MetricRecord
from flowexp.models import Model
from flowexp.samplers.base import known_times

__all__ = ["Station", "TrajectoryMetric", "linear_clock", "walk"]


@dataclass(frozen=True, eq=False)
class Station:
    """State of a simulated trajectory before a step.

    Attributes:
        tau: Time of the linear path.
        share: Length of the step as a share of the whole range; the shares sum to 1.
        velocity: ``dz/dtau``, (B, ...), float64.
        noise: Predicted noise e, (B, ...), float64.
    """

    tau: float
    share: float
    velocity: Tensor
    noise: Tensor


def linear_clock(model: Model, *, steps: int) -> tuple[Tensor, Tensor]:
    """Times t and tau, (steps + 1,) each, float64, uniform in tau from the model's range to data.

    Where the last step would begin below the model's range, it begins at its lower end; times are
    moved to the nearest ones of the model's grid.
    """
    schedule, (low, high) = model.path.schedule, model.time_range
    ends = torch.tensor([high, low, 0.0], dtype=torch.float64)
    start, lowest, end = _tau(model, ends).tolist()
    tau = torch.linspace(start, end, steps + 1, dtype=torch.float64)
    if float(tau[-2]) < lowest:
        tau = torch.cat([torch.linspace(start, lowest, steps, dtype=torch.float64), tau[-1:]])
    times = schedule.time_at_nsr(tau / (1.0 - tau)).clamp(low, high)
    times[0], times[-1] = high, 0.0
    times = known_times(model, times)
    return times, _tau(model, times)


def _tau(model: Model, t: Tensor) -> Tensor:
    c = model.path.schedule.coefficients(t)
    return c.sigma / (c.alpha + c.sigma)


def walk(
    model: Model, e: Tensor, *, steps: int, conditions: Mapping[str, Tensor | None]
) -> Iterator[Station]:
    """Euler's method in tau, in float64, from source draws e (B, ...) to the data.

    Every one of the ``steps`` >= 1 steps calls the model once, with ``conditions`` (B, ...).
    """
    times, tau = linear_clock(model, steps=steps)
    c = model.path.schedule.coefficients(times)
    scale, clock = (c.alpha + c.sigma).tolist(), tau.tolist()
    z = model.path.start(e.to(torch.float64), times[0]) / scale[0]
    for i, evaluate in enumerate(model.at(times[:-1].to(z.device))):
        length = clock[i] - clock[i + 1]
        if length == 0.0:
            continue
        prediction = evaluate(z * scale[i], **conditions)
        velocity = prediction.noise - prediction.data
        yield Station(clock[i], length / (clock[0] - clock[-1]), velocity, prediction.noise)
        z = z - length * velocity


class TrajectoryMetric(ModelMetric):
    """A metric of finely simulated trajectories, the mean over one trajectory per seed.

    Args:
        steps: Euler steps, uniform in the linear path's time, >= 2; else ``ValueError``.

    Attributes:
        quantity: What is computed, with its unit, as it is printed.
    """

    quantity: str

    def __init__(self, *, steps: int = 100) -> None:
        if steps < 2:
            raise ValueError(f"steps is {steps}; allowed: integers >= 2")
        self.steps = steps

    @abstractmethod
    def along(self, stations: Iterator[Station], e: Tensor) -> dict[str, Tensor]:
        """Per-sample values, (B,): ``value`` and those shown beside it.

        The trajectories, which start from e (B, ...), float64, can be passed through once.
        """

    def measure(self, model: Model, *, setting: Setting) -> tuple[MetricRecord, ...]:
        def values(seeds: list[int]) -> dict[str, Tensor]:
            with torch.inference_mode():
                start = setting.pipeline.start(seeds)
                stations = walk(model, start.e, steps=self.steps, conditions=start.conditions)
                return self.along(stations, start.e.to(torch.float64))

        return records_of(
            self.name,
            setting.per_item(list(setting.seeds), values, what=f"{self.name} of"),
            metric=self.quantity,
            how=f"{self.steps} Euler steps in linear-path time",
            data=setting.reference,
            sampler=f"Euler, {self.steps} steps, uniform in linear-path time",
            nfe=float(self.steps * model.evaluations_per_call),
        )
