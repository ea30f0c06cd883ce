"""One dropout mask for all network calls of a training step."""

import torch
from torch import Tensor

from flowexp.models import Model, WrappedModel
from flowexp.paths import Prediction

__all__ = ["SameDropout"]


class SameDropout(WrappedModel):
    """A model whose calls all draw the same numbers from torch's global generators.

    The states of the generators (CPU and accelerator) before the first call are restored before
    every further one, so that calls on batches of equal shape drop the same units and labels.
    Averages of the weights (:meth:`average`) share these states. Make a new one for every batch.

    Source: Song et al., Consistency Models, 2023, arXiv 2303.01469, as in the authors' code; Geng
    et al., ECT, 2024, arXiv 2406.14548.
    """

    def __init__(self, model: Model, *, states: dict[torch.device, Tensor] | None = None) -> None:
        super().__init__(model)
        self._states: dict[torch.device, Tensor] = {} if states is None else states

    def predict(self, x_t: Tensor, t: Tensor, **conditions: Tensor | None) -> Prediction:
        self._rewind(x_t.device)
        return self.model.predict(x_t, t, **conditions)

    def average_velocity(
        self, x_t: Tensor, t: Tensor, r: Tensor, **conditions: Tensor | None
    ) -> Tensor:
        self._rewind(x_t.device)
        return self.model.average_velocity(x_t, t, r, **conditions)

    def with_velocity_head(
        self, x_t: Tensor, t: Tensor, r: Tensor, **conditions: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        self._rewind(x_t.device)
        return self.model.with_velocity_head(x_t, t, r, **conditions)

    def average(self, name: str) -> "SameDropout":
        return SameDropout(self.model.average(name), states=self._states)

    def _rewind(self, device: torch.device) -> None:
        """Restore the states of the generators before the first call."""
        for place in {torch.device("cpu"), device}:
            if place not in self._states:
                self._states[place] = _generator_state(place)
            elif place.type == "cpu":
                torch.default_generator.set_state(self._states[place])
            else:
                torch.get_device_module(place).set_rng_state(self._states[place], place)


def _generator_state(device: torch.device) -> Tensor:
    if device.type == "cpu":
        return torch.default_generator.get_state()
    state: Tensor = torch.get_device_module(device).get_rng_state(device)
    return state
