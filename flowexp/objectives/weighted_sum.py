"""Several losses of one batch, added."""

from collections.abc import Iterator, Mapping

import torch

from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives.base import Loss, Objective
from flowexp.requirements import Parts, Unmet, all_of, within

__all__ = ["WeightedSum"]


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

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        needs = [within(f"parts.{name}", part.needs(parts)) for name, part in self.parts.items()]
        yield from all_of(*needs)

    def check(self) -> None:
        for part in self.parts.values():
            part.check()

    def loss(self, model: Model, pairs: Pairs, t: torch.Tensor, *, rng: torch.Generator) -> Loss:
        total = torch.zeros(len(t), dtype=torch.float32, device=pairs.x.device)
        metrics: dict[str, torch.Tensor] = {}
        for name, part in self.parts.items():
            found = part.loss(model, pairs, t, rng=rng)
            total = total + self.weights[name] * found.per_sample
            metrics[name] = found.per_sample.detach().mean()
            metrics |= {f"{name}_{key}": value for key, value in found.metrics.items()}
        return Loss(total, metrics)
