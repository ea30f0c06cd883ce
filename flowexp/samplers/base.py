"""The sampler protocol: a source draw becomes a sample, with its evaluations counted."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from flowexp.identity import Identified
from flowexp.models import Evaluation, Model, WrappedModel
from flowexp.paths import Prediction
from flowexp.requirements import (
    ModelFacts,
    Part,
    Parts,
    Unmet,
    all_of,
    on_gaussian_noise,
    on_velocity,
    require,
)
from flowexp.seeding import Noise

__all__ = ["CountedModel", "Sampler", "Samples", "StepObserver", "TimeGrid"]

ROUNDING = 1e-12
"""Relative amount by which a time may miss an end of a model's range."""

StepObserver = Callable[[Tensor, Tensor], None]
"""Called with ``(t, x_t)`` at the start and after every step: t () or (B,), x_t (B, ...)."""


@dataclass(frozen=True)
class Samples:
    """The result of a sampler.

    Attributes:
        x: (B, ...), in the dtype of the source draws.
        nfe: Network evaluations per sample, (B,), int64: counted, not computed from a formula.
        facts: Further numbers of each sample by their names in words, (B,) float64 each, of which
            users are shown the mean.
    """

    x: Tensor
    nfe: Tensor
    facts: Mapping[str, Tensor] = field(default_factory=dict)


class CountedModel(WrappedModel):
    """A model that counts its evaluations."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.calls = 0

    @property
    def evaluations(self) -> int:
        """Network evaluations so far."""
        return self.calls * self.evaluations_per_call

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        self.calls += 1
        return self.model.predict(x_t, t, **conditions)

    def average_velocity(
        self, x_t: Tensor, t: Tensor, r: Tensor, **conditions: Tensor | None
    ) -> Tensor:
        self.calls += 1
        return self.model.average_velocity(x_t, t, r, **conditions)

    def flow_map(self, x_t: Tensor, t: Tensor, r: Tensor, **conditions: Tensor | None) -> Tensor:
        self.calls += 1
        return self.model.flow_map(x_t, t, r, **conditions)

    def at(self, times: Tensor) -> list[Evaluation]:
        return [partial(self._counted, evaluate) for evaluate in self.model.at(times)]

    def _counted(
        self, evaluate: Evaluation, /, x_t: Tensor, **conditions: Tensor | None
    ) -> Prediction:
        self.calls += 1
        return evaluate(x_t, **conditions)


class TimeGrid(Identified, ABC):
    """The times between which a fixed-step sampler takes its steps.

    Attributes:
        above_zero: What to do so that it ends above t = 0.
    """

    above_zero: str = "use sampler/time_grid=uniform sampler.time_grid.t_end=0.04"

    @property
    def ends_at_zero(self) -> bool:
        """Whether it is known to end at t = 0 for every model."""
        return False

    @abstractmethod
    def times(self, model: Model, steps: int) -> Tensor:
        """``steps + 1`` float64 times on the CPU, strictly decreasing from the source end to 0.

        The first lies within ``model.time_range``; the last may lie below it (t = 0), because a
        step never evaluates the model at its end unless the model allows it there.
        """


class Sampler(Part, ABC):
    """A numerical method that carries source draws to samples.

    ``needs_gaussian`` says whether it adds noise that is right for a Gaussian source only,
    ``shares_steps`` whether a sample depends on the others of its batch, ``jumps`` whether it uses
    the model's flow map instead of predictions at one time, ``reconstructs`` whether it gives back
    an image that it is shown.
    """

    needs_gaussian: bool = False
    shares_steps: bool = False
    jumps: bool = False
    reconstructs: bool = False

    @property
    def adds_noise(self) -> bool:
        """Whether a sample depends on more than its source draw."""
        return self.needs_gaussian

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """The requirements of :meth:`noise_needs` and :meth:`fits`."""
        yield from all_of(self.noise_needs(parts), self._fitting(parts))

    def noise_needs(self, parts: Parts) -> Iterator[Unmet]:
        """The requirements of its noise: a Gaussian source, if ``needs_gaussian``."""
        if self.needs_gaussian:
            what = f"{type(self).__name__} assumes"
            yield from on_gaussian_noise(parts, what=what, remedy="Take a deterministic sampler")

    def _fitting(self, parts: Parts) -> Iterator[Unmet]:
        yield from self.fits(parts.parameterization)

    def fits(self, model: ModelFacts) -> Iterator[Unmet]:
        """Requirements concerning the model's second time; by default, that it has a velocity."""
        remedy = "Use sampler=flow_map sampler.noise=restart."
        yield from on_velocity(model, name=type(self).__name__, remedy=remedy)

    @abstractmethod
    def sample(
        self,
        model: Model,
        e: Tensor,
        *,
        noise: Noise | None = None,
        on_step: StepObserver | None = None,
        **conditions: Tensor | None,
    ) -> Samples:
        """Samples from source draws.

        Args:
            model: The model that is sampled.
            e: Source draws, (B, ...); the start is ``sigma(t_0) e``.
            noise: Normal noise per step, for samplers that inject some.
            on_step: Must not change the state it is shown.
            conditions: (B, ...) tensors for the model, such as ``labels``.
        """

    def check(self, model: Model) -> None:
        """Refuse a model that this sampler does not fit, before anything is computed.

        A UsageError if its noise is wrong for the path's source or the model has not what
        :meth:`fits` needs, a ValueError if its times are wrong.
        """
        facts = Parts(path=model.path, parameterization=model)
        require(self.needs(facts), group="sampler")

    def describe(self) -> str:
        """The method in words, as protocols state it: ``Heun, 18 steps``."""
        return type(self).__name__


def known_times(model: Model, times: Tensor) -> Tensor:
    """A grid's times, each moved to the nearest one that the model was trained at.

    Where the grid is finer than the model's levels, neighbours become equal and the steps between
    them empty. Times below the model's range, such as a last 0, are not moved.
    """
    low, _ = model.time_range
    evaluated = (times > 0.0) & (times >= low * (1.0 - ROUNDING))
    return torch.where(evaluated, model.nearest_time(times), times)
