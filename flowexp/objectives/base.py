"""The protocol of objectives: what is regressed, and how deviations are measured."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives.weightings import Uniform, Weighting
from flowexp.requirements import Part, Parts, Unmet, all_of, on_unit_time, within, within_signal

__all__ = ["Loss", "Objective", "WeightedSum"]


@dataclass(frozen=True)
class Loss:
    """The loss of one batch, (B,), float32, with gradient, which the training loop averages.

    ``metrics`` are further scalars to log, detached.
    """

    per_sample: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Objective(Part, ABC):
    """A training loss as a function of the model, the coupled pairs and their times.

    Constructors raise ``ValueError`` for an argument outside the range that their docstring states,
    as do those of weightings and premetrics.

    Attributes:
        needs_signal: Whether it is not defined where alpha is 0, at pure source.
        needs_unit_time: Whether the path's time must run from 0 to 1.
        trains_refiner: Whether it passes the network a velocity to correct, which the
            parameterization must accept.
        columns: Names of the times of a sample that it needs, at least ``t``.
        uniforms: How many random numbers in (0, 1) it needs for each sample, ``pairs.uniforms``.
        averages: Names of the averages of the weights (``ema``) whose predictions it needs.
        forward_mode: Whether it differentiates the network in forward mode.
        weighting: Loss weight as a function of time; 1 unless it is an argument.
    """

    needs_signal: bool = False
    needs_unit_time: bool = False
    trains_refiner: bool = False
    columns: tuple[str, ...] = ("t",)
    uniforms: int = 0
    averages: tuple[str, ...] = ()
    forward_mode: bool = False
    weighting: Weighting = Uniform()

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Times at which it is defined, and what its weighting needs."""
        name = type(self).__name__
        yield from all_of(
            within_signal(parts, name=name, group="objective") if self.needs_signal else (),
            on_unit_time(parts, name=name) if self.needs_unit_time else (),
            self._weighting(parts),
            self._times(parts),
            self._averages(parts),
        )

    def _times(self, parts: Parts) -> Iterator[Unmet]:
        drawn, wanted = tuple(parts.timestep.columns), tuple(self.columns)
        if drawn != wanted:
            name, law = type(self).__name__, type(parts.timestep).__name__
            problem = f"{law} draws {' and '.join(drawn)}, but {name} needs {' and '.join(wanted)}."
            known = {1: "lognormal", 2: "sorted"}
            yield Unmet("timestep", problem, f"Use timestep={known.get(len(wanted), 'sorted')}.")

    def _averages(self, parts: Parts) -> Iterator[Unmet]:
        for name in self.averages:
            if name not in parts.ema:
                problem = f"{type(self).__name__} needs the average {name!r} of the weights."
                yield Unmet("ema", problem, f"Add it, for example with ema@ema.{name}=constant.")

    def _weighting(self, parts: Parts) -> Iterator[Unmet]:
        yield from within("weighting", self.weighting.needs(parts))

    def check(self) -> None:
        """Raise ``UsageError`` if a file is missing; most objectives need none."""

    @abstractmethod
    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        """The loss of one batch; with one network call and no random draws unless documented.

        ``t`` are the times of the pairs, (B,), float64, or (B, len(columns)).
        """


class WeightedSum(Objective):
    """``sum_i w_i L_i`` of objectives on the same pairs, times and model.

    SlimFlow's distillation is the sum of a regression onto stored pairs and of
    :class:`FlowGuided`. Each part's mean is logged under its name, its metrics with that prefix.

    Args:
        parts: The objectives by name, at least one; they share the generator, in this order.
        weights: Factor of each, by the same names; None = 1 for all.
    """

    def __init__(
        self, *, parts: Mapping[str, Objective], weights: Mapping[str, float] | None = None
    ) -> None:
        if not parts:
            raise ValueError("parts is empty; expected at least one objective")
        if weights is not None and set(weights) != set(parts):
            raise ValueError(f"weights has {sorted(weights)}; expected {sorted(parts)}")
        self.parts = dict(parts)
        self.weights = {name: 1.0 if weights is None else float(weights[name]) for name in parts}
        averages = [name for part in self.parts.values() for name in part.averages]
        self.averages = tuple(dict.fromkeys(averages))
        self.forward_mode = any(part.forward_mode for part in self.parts.values())
        self.uniforms = sum(part.uniforms for part in self.parts.values())

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        needs = [within(f"parts.{name}", part.needs(parts)) for name, part in self.parts.items()]
        yield from all_of(*needs)

    def check(self) -> None:
        for part in self.parts.values():
            part.check()

    def loss(self, model: Model, pairs: Pairs, t: torch.Tensor, *, rng: torch.Generator) -> Loss:
        total = torch.zeros(len(t), dtype=torch.float32, device=pairs.x.device)
        metrics: dict[str, torch.Tensor] = {}
        start = 0
        for name, part in self.parts.items():
            own, start = pairs.with_uniforms(start, part.uniforms), start + part.uniforms
            found = part.loss(model, own, t, rng=rng)
            total = total + self.weights[name] * found.per_sample
            metrics[name] = found.per_sample.detach().mean()
            metrics |= {f"{name}_{key}": value for key, value in found.metrics.items()}
        return Loss(total, metrics)
