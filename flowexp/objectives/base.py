"""The protocol of objectives: what is regressed, and how deviations are measured."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.paths import Path

__all__ = ["Loss", "Objective"]


@dataclass(frozen=True)
class Loss:
    """The loss of one batch.

    Attributes:
        per_sample: (B,), float32, with gradient; the training loop averages it.
        metrics: Further scalars to log, detached.
    """

    per_sample: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Objective(ABC):
    """A training loss as a function of the model, the coupled pairs and their times.

    Attributes:
        needs_signal: Whether it is not defined where alpha is 0, at pure source.
        needs_unit_time: Whether the path's time must run from 0 to 1.
        trains_refiner: Whether it passes the network a velocity to correct, which the
            parameterization must accept.
    """

    needs_signal: bool = False
    needs_unit_time: bool = False
    trains_refiner: bool = False

    def check_path(self, path: Path) -> None:
        """Refuse a path on which the objective is not defined; called once, before training.

        Raises:
            ValueError: One sentence that names both.
        """
        if self.needs_unit_time and path.schedule.t_max > 1.0:
            raise ValueError(
                f"{type(self).__name__} needs a path whose time runs from 0 to 1, not "
                f"{path.schedule!r}"
            )

    @abstractmethod
    def loss(self, model: Model, pairs: Pairs, t: Tensor, *, rng: torch.Generator) -> Loss:
        """The loss of one batch; with one network call and no random draws unless documented.

        Args:
            model: Path + network + parameterization.
            pairs: Data, source, conditions and weights.
            t: Times, (B,), float64.
            rng: Generator for objectives that draw.
        """
