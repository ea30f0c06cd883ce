"""The protocol of objectives: what is regressed, and how deviations are measured."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

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


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _any_of(names: tuple[str, ...]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


class Objective(Part, ABC):
    """A training loss as a function of the model, the coupled pairs and their times.

    Constructors raise ``ValueError`` for an argument outside the range that their docstring states,
    as do those of weightings and premetrics.

    Attributes:
        needs_signal: Whether it is not defined where alpha is 0, at pure source.
        needs_unit_time: Whether the path's time must run from 0 to 1.
        trains_refiner: Whether it passes the network a velocity to correct, which the
            parameterization must accept.
        trains_score: Whether it trains a score head beside the velocity.
        columns: Names of the times per sample that it needs, at least ``t``.
        laws: The options of ``timestep`` suggested to a user whose own draws other times.
        uniforms: Number of uniform random numbers per sample that it needs (``pairs.uniforms``).
        averages: Names of the averages of the weights (``ema``) whose predictions it needs.
        forward_mode: Whether it differentiates the network in forward mode.
        group: Number of consecutive rows that it compares with each other. Batches and their parts
            must hold whole groups.
        weighting: Loss weight as a function of time; 1 unless it is an argument.
    """

    needs_signal: bool = False
    needs_unit_time: bool = False
    trains_refiner: bool = False
    trains_score: bool = False
    columns: tuple[str, ...] = ("t",)
    laws: tuple[str, ...] = ("lognormal",)
    uniforms: int = 0
    averages: tuple[str, ...] = ()
    forward_mode: bool = False
    group: int = 1
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
            self._groups(parts),
        )

    def _times(self, parts: Parts) -> Iterator[Unmet]:
        drawn, wanted = tuple(parts.timestep.columns), tuple(self.columns)
        if drawn != wanted:
            name, law = type(self).__name__, type(parts.timestep).__name__
            problem = f"{law} draws {_listed(drawn)}, but {name} needs {_listed(wanted)}."
            yield Unmet("timestep", problem, f"Use timestep={_any_of(self.laws)}.")

    def _averages(self, parts: Parts) -> Iterator[Unmet]:
        for name in self.averages:
            if name not in parts.ema:
                problem = f"{type(self).__name__} needs the average {name!r} of the weights."
                entry = f"'+ema.{name}={{_target_: flowexp.training.ConstantEMA, decay: 0.99}}'"
                yield Unmet("ema", problem, f"Add it, for example with {entry}.")

    def _groups(self, parts: Parts) -> Iterator[Unmet]:
        settings = parts.trainer
        whole = f"is not a multiple of {self.group}, the size of the groups"
        for key, size in (
            ("batch_size", settings.batch_size),
            ("micro_batch", settings.micro_batch),
        ):
            if size is not None and size % self.group:
                problem = f"{size} {whole} that {type(self).__name__} compares."
                yield Unmet(f"trainer.{key}", problem, f"Choose a multiple of {self.group}.")

    def _weighting(self, parts: Parts) -> Iterator[Unmet]:
        yield from within("weighting", self.weighting.needs(parts))

    def check(self) -> None:
        """Raise ``UsageError`` if a file is missing; most objectives need none."""

    @property
    def learned(self) -> nn.Module | None:
        """The module that is trained and checkpointed with the network: itself, if it is one."""
        return self if isinstance(self, nn.Module) else None

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
        columns = {name: part.columns for name, part in parts.items()}
        if len(set(columns.values())) > 1:
            times = "; ".join(f"{name}: {_listed(own)}" for name, own in columns.items())
            raise ValueError(f"parts need different times, but share one law of them: {times}")
        self.parts = dict(parts)
        self.columns = next(iter(columns.values()))
        self.group = math.lcm(*(part.group for part in parts.values()))
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

    @property
    def learned(self) -> nn.Module | None:
        found = {name: part.learned for name, part in self.parts.items()}
        modules = {name: module for name, module in found.items() if module is not None}
        return nn.ModuleDict(modules) if modules else None

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
