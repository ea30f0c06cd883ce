"""The model interface of samplers, guidance and objectives: one prediction per network call."""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from pathlib import Path as FilePath
from typing import Protocol

import torch
from torch import Tensor, nn

from flowexp.broadcast import expand_as, factors, scaled
from flowexp.networks import Network
from flowexp.networks.foreign import WrappedNetwork
from flowexp.networks.memory import Memory
from flowexp.parameterizations import Conditions, FlowMap, Parameterization
from flowexp.paths import Coefficients, Conversion, Path, Prediction

__all__ = ["Evaluation", "FlowModel", "Model", "Origin", "WrappedModel"]


class Evaluation(Protocol):
    """A model at one time."""

    def __call__(self, x_t: Tensor, **conditions: Tensor | None) -> Prediction:
        """:meth:`Model.predict` at that time."""


@dataclass(frozen=True)
class Origin:
    """The trained weights behind a model, and where their calibrations are.

    Attributes:
        weights_sha256: Digest of the checkpoint file.
        weights: Name of the average, or ``raw``.
        calibrations: Folder of what was calibrated for this run.
        selection: Which weights of the training, see :class:`flowexp.metrics.protocol.Protocol`.
    """

    weights_sha256: str
    weights: str
    calibrations: FilePath
    selection: str = "last"


class Model(ABC):
    """Anything that predicts on a path: a network, a guided network, a closed form.

    A subclass implements :meth:`predict`; wrappers (guidance) are models of models.

    Attributes:
        path: The path the model is defined on.
        time_range: Times (low, high) at which samplers may evaluate the velocity; below ``low``
            lies only the data end, t = 0, which a step from ``low`` or above reaches.
        evaluations_per_call: Network evaluations per sample that one :meth:`predict` costs.
        origin: The trained weights, or None (a closed form, a network in training).
        labels_dropped: Whether training also showed the network no label; None = that is not known,
            or there are no labels.
        asks_without_label: Whether every prediction needs the one without label too, as guidance.
        is_flow_map: Whether it has a second time: :meth:`average_velocity`, :meth:`flow_map`.
        maps_to_data_only: Whether that time can only be r = 0, as in consistency models.
        score_head: Whether it predicts the score beside the velocity, for any source.
    """

    path: Path
    time_range: tuple[float, float]
    evaluations_per_call: int = 1
    origin: Origin | None = None
    labels_dropped: bool | None = None
    asks_without_label: bool = False
    is_flow_map: bool = False
    maps_to_data_only: bool = False
    score_head: bool = False

    @abstractmethod
    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        """One evaluation: velocity, data and noise at (x_t, t).

        Args:
            x_t: State, (B, ...); its dtype is the dtype of the prediction.
            t: Time, () or (B,), float64, 0 = data.
            conditions: What the model is conditioned on, e.g. ``labels`` (B,) int64, -1 = none.
        """

    def at(self, times: Tensor) -> list[Evaluation]:
        """The model at each of several times, for samplers that know theirs in advance.

        ``model.at(times)[i](x_t, **conditions)`` is ``model.predict(x_t, times[i], **conditions)``
        to rounding. A model may prepare here, for all times together, what depends on time only; by
        default this calls :meth:`predict`. ``times`` are (K,), or (K, B) where the samples have
        their own, float64, on the device of the states.
        """
        return [partial(self.predict, t=t) for t in times.unbind()]

    def prepared(self, **conditions: Tensor | None) -> Conditions:
        """The conditions, for many calls with them: what does not depend on state and time is done.

        Each stays a tensor with one row per sample, or None, and "none" stays "none". A network
        with a method of this name prepares them; by default they are returned as they are.
        """
        return conditions

    def average_velocity(
        self, x_t: Tensor, t: Tensor, r: Tensor, **conditions: Tensor | None
    ) -> Tensor:
        """``u = (x_t - X_{t->r}(x_t))/(t - r)`` for r <= t, shaped like t; the velocity at r = t.

        Raises:
            TypeError: The model has one time only.
        """
        raise TypeError(
            f"{type(self).__name__} has no second time; a flow map is trained with "
            f"parameterization=average_velocity"
        )

    def flow_map(self, x_t: Tensor, t: Tensor, r: Tensor, **conditions: Tensor | None) -> Tensor:
        """``X_{t->r}(x_t) = x_t - (t - r) u(x_t, t, r)``: the state at r <= t; one evaluation."""
        velocity = self.average_velocity(x_t, t, r, **conditions)
        return x_t - expand_as(t - r, x_t) * velocity

    def output_scale(self, t: Tensor, r: Tensor) -> Tensor:
        """``|du/dF|``, (B,): the scale of the network's output F in u; 1 by default."""
        return torch.ones_like(t)

    def with_velocity_head(
        self, x_t: Tensor, t: Tensor, r: Tensor, **conditions: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """u(x_t, t, r) and the velocity v(x_t, t), which is a second head's if there is one."""
        average = self.average_velocity(x_t, t, r, **conditions)
        return average, self.average_velocity(x_t, t, t, **conditions)

    def average(self, name: str) -> "Model":
        """This model with an average of its weights (EMA), during training.

        Raises:
            KeyError: There is no average of that name.
        """
        raise KeyError(f"{type(self).__name__} has no average {name!r} of its weights")

    def nearest_time(self, t: Tensor) -> Tensor:
        """The times nearest to float64 ``t``, of its shape, that the model was trained at.

        These are t itself unless the network has a finite number of noise levels. Samplers place
        their steps there; a model can be evaluated at every other time of its range too.

        Source: Karras et al., EDM, 2022, arXiv 2206.00364: ``round_sigma`` in their code.
        """
        return t

    @property
    def remembers(self) -> bool:
        """Whether its network can remember the evaluations of a sampling call."""
        return False

    def remembering(self, memory: Memory) -> "Model":
        """This model with a memory of its evaluations, for one sampling call.

        Raises:
            TypeError: It does not remember.
        """
        raise TypeError(f"{type(self).__name__} has no memory")

    def alongside(self, other: "Model") -> "Model":
        """The other model with the guidance of this one: unchanged, unless this is a wrapper."""
        return other

    def unwrapped(self, device: torch.device) -> "Model":
        """The model within all wrappers, its weights on ``device``: itself, if it is none."""
        return self

    def velocity(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Tensor:
        """``dx_t/dt``; arguments of this and the next three as in :meth:`predict`."""
        return self.predict(x_t, t, **conditions).velocity

    def denoise(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Tensor:
        """``E[x | x_t]``."""
        return self.predict(x_t, t, **conditions).data

    def noise(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Tensor:
        """``E[e | x_t]``."""
        return self.predict(x_t, t, **conditions).noise

    def score(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Tensor:
        """``grad log p_t(x_t)``, Gaussian source only."""
        return self.predict(x_t, t, **conditions).score


class WrappedModel(Model):
    """A model around another one, which it resembles in all but :meth:`predict`."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.path = model.path
        self.time_range = model.time_range
        self.evaluations_per_call = model.evaluations_per_call
        self.origin = model.origin
        self.labels_dropped = model.labels_dropped
        self.asks_without_label = model.asks_without_label
        maps = type(self).average_velocity is not Model.average_velocity
        self.is_flow_map = model.is_flow_map and maps
        self.maps_to_data_only = model.maps_to_data_only
        self.score_head = model.score_head

    @property
    def remembers(self) -> bool:
        return self.model.remembers

    def remembering(self, memory: Memory) -> Model:
        wrapped = copy.copy(self)
        wrapped.model = self.model.remembering(memory)
        return wrapped

    def average(self, name: str) -> Model:
        return self.model.average(name)

    def alongside(self, other: Model) -> Model:
        return self.model.alongside(other)

    def unwrapped(self, device: torch.device) -> Model:
        return self.model.unwrapped(device)

    def prepared(self, **conditions: Tensor | None) -> Conditions:
        return self.model.prepared(**conditions)

    def nearest_time(self, t: Tensor) -> Tensor:
        return self.model.nearest_time(t)


class FlowModel(Model):
    """Path + network ``F(c_in x_t, c_noise, **conditions)`` + parameterization, which reads F."""

    def __init__(
        self, path: Path, *, network: nn.Module, parameterization: Parameterization
    ) -> None:
        self.path = path
        self.network = network
        self.parameterization = parameterization
        low, high = parameterization.time_range(path.schedule)
        if not low < high:
            raise ValueError(
                f"{type(parameterization).__name__} is defined at no time of {path.schedule!r}"
            )
        self.time_range = (low, high)
        self.is_flow_map = parameterization.is_flow_map
        self.maps_to_data_only = parameterization.maps_to_data_only
        self.score_head = parameterization.score_head
        self.averages: dict[str, Model] = {}

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        """One network call, in float32 (or the autocast dtype); the rest in the dtype of x_t."""
        t = t.to(device=x_t.device, dtype=torch.float64)
        c = self.path.schedule.coefficients(t)
        inputs = self.parameterization.inputs(self.path.schedule, t, c)
        c_noise = inputs.c_noise.to(torch.float32)
        conversion = self._conversion(c)
        merged = {**conditions, **self._second_time(t)}
        return self._evaluate(inputs.c_in, c_noise, conversion, x_t, **merged)

    def at(self, times: Tensor) -> list[Evaluation]:
        """The model at each time; what depends on time only is computed here, for all times."""
        if type(self).predict is not FlowModel.predict:
            return super().at(times)
        t = times.to(device="cpu", dtype=torch.float64)
        c = self.path.schedule.coefficients(t)
        inputs = self.parameterization.inputs(self.path.schedule, t, c)
        # Predictions need their scalars on the device of the states.
        on_device = c.map(lambda column: column.to(times.device))
        conversions = self._conversion(on_device).rows()
        c_noise = inputs.c_noise.to(device=times.device, dtype=torch.float32)
        c_in = factors(inputs.c_in, device=times.device)
        rows = zip(c_in, c_noise.unbind(), conversions, strict=True)
        second = [self._second_time(time) for time in times.unbind()]
        return [partial(self._evaluate, *row, **now) for row, now in zip(rows, second, strict=True)]

    def _second_time(self, t: Tensor) -> dict[str, Tensor]:
        """The inputs that encode the second time in predictions at one time: r = t."""
        rule = self.parameterization
        return rule.second_time(self.path.schedule, t, t) if isinstance(rule, FlowMap) else {}

    def average_velocity(
        self, x_t: Tensor, t: Tensor, r: Tensor, **conditions: Tensor | None
    ) -> Tensor:
        return self._between(x_t, t, r, conditions)[0]

    def with_velocity_head(
        self, x_t: Tensor, t: Tensor, r: Tensor, **conditions: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        average, velocity = self._between(x_t, t, r, conditions)
        if velocity is None:
            return super().with_velocity_head(x_t, t, r, **conditions)
        return average, velocity

    def output_scale(self, t: Tensor, r: Tensor) -> Tensor:
        rule, schedule = self.parameterization, self.path.schedule
        if not isinstance(rule, FlowMap):
            return super().output_scale(t, r)
        conversion = self._conversion(schedule.coefficients(t))
        scale = rule.jump.average_velocity(conversion, schedule, t, r).output
        return torch.as_tensor(scale, dtype=t.dtype, device=t.device).abs().expand_as(t)

    @property
    def remembers(self) -> bool:
        return bool(getattr(self.network, "remembers", False))

    def remembering(self, memory: Memory) -> Model:
        if not isinstance(self.network, Network | WrappedNetwork):
            return super().remembering(memory)
        remembering = copy.copy(self)
        remembering.network = self.network.remembering(memory)
        return remembering

    def prepared(self, **conditions: Tensor | None) -> Conditions:
        prepare = getattr(self.network, "prepared", None)
        return conditions if prepare is None else prepare(**conditions)

    def average(self, name: str) -> Model:
        if name not in self.averages:
            return super().average(name)
        return self.averages[name]

    def _between(
        self, x_t: Tensor, t: Tensor, r: Tensor, conditions: Conditions
    ) -> tuple[Tensor, Tensor | None]:
        """One network call at t and r: u, and the velocity head's v or None."""
        rule, schedule = self.parameterization, self.path.schedule
        if not isinstance(rule, FlowMap):
            return super().average_velocity(x_t, t, r, **conditions), None
        t, r = (time.to(device=x_t.device, dtype=torch.float64) for time in (t, r))
        c = schedule.coefficients(t)
        inputs = rule.inputs(schedule, t, c)
        conversion = self._conversion(c)
        merged = {**conditions, **rule.second_time(schedule, t, r)}
        x = scaled(x_t, inputs.c_in).to(torch.float32)
        c_noise = inputs.c_noise.to(torch.float32).expand(len(x_t))
        output, head = rule.heads(self.network, x, c_noise, merged)
        average = rule.jump.average_velocity(conversion, schedule, t, r)(x_t, output.to(x_t.dtype))
        if head is None:
            return average, None
        return average, Prediction(self.path, x_t, head.to(x_t.dtype), conversion).velocity

    def _conversion(self, c: Coefficients) -> Conversion:
        return self.parameterization.conversion_in(c, training=self.network.training)

    def _evaluate(
        self,
        c_in: Tensor | float,
        c_noise: Tensor,
        conversion: Conversion,
        /,
        x_t: Tensor,
        **conditions: Tensor | None,
    ) -> Prediction:
        x, times = scaled(x_t, c_in).to(torch.float32), c_noise.expand(x_t.shape[0])
        output = self.parameterization.evaluate(self.network, x, times, conditions)
        return Prediction(self.path, x_t, output.to(x_t.dtype), conversion)

    def nearest_time(self, t: Tensor) -> Tensor:
        return self.parameterization.nearest_time(self.path.schedule, t)
