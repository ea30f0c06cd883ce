"""The memory of a network that is called again and again on the way of one sample."""

from collections.abc import Sequence

from torch import Tensor

__all__ = ["Memory"]


class Memory:
    """What a network keeps of its calls while a batch is sampled: a state per layer.

    It is empty at first. Every call reads it. The first call after :meth:`begin_step` also extends
    it; the further calls of a solver's step do not, so that a step counts once whatever its number
    of evaluations.

    Attributes:
        states: State by number of layer, (B, ...), one per row of a batch; None = empty.
    """

    def __init__(self) -> None:
        self.states: dict[int, Tensor | None] = {}
        self._extends = False

    def begin_step(self) -> None:
        """Let the next call of the network extend it."""
        self._extends = True

    def read(self, layer: int) -> Tensor | None:
        """The state of a layer; None = empty."""
        return self.states.get(layer)

    def after_call(self, states: Sequence[Tensor | None]) -> None:
        """Take the states of all layers after a call, if it is the first one of a step."""
        if self._extends:
            self.states = dict(enumerate(states))
            self._extends = False
