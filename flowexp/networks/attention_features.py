"""The values of attention layers, recorded in one call of a network and put into another.

Every attention layer lets its values V pass through an :class:`AttentionValues`, which does nothing
by itself; whoever wants to see or replace them looks these places up in the network.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["AttentionValues", "SharedValues", "attention_values"]


class AttentionValues(nn.Module):
    """The place at which the values V of one attention layer can be seen and replaced."""

    def forward(self, v: Tensor) -> Tensor:
        """V itself, (B, heads, tokens, channels of a head)."""
        return v


def attention_values(network: nn.Module) -> list[AttentionValues]:
    """The places of a network's attention layers, in the order in which it registers them."""
    return [m for m in network.modules() if isinstance(m, AttentionValues)]


class SharedValues:
    """Values of attention layers that were recorded under a key and can be put in under it.

    Args:
        network: Whose attention layers share.
        first_layer: Number of the first layer that shares; earlier ones are left alone.
        device: Where recorded values wait; None = where they arise. The host (``cpu``) spares the
            accelerator's memory: there is one tensor per call and layer.

    Raises:
        ValueError: The network has no attention layer from ``first_layer`` on.

    Source: Wang et al., RF-Solver, 2024, arXiv 2411.04746, section 3.3, with code.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        first_layer: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        places = attention_values(network)
        if not 0 <= first_layer < len(places):
            raise ValueError(
                f"first_layer is {first_layer}, but {type(network).__name__} has {len(places)} "
                f"attention layers to share values of"
            )
        self._places = list(enumerate(places))[first_layer:]
        self._device = device
        self._store: dict[tuple[Hashable, int], Tensor] = {}

    @property
    def keys(self) -> set[Hashable]:
        """What was recorded."""
        return {key for key, _ in self._store}

    @contextmanager
    def recorded(self, key: Hashable) -> Iterator[None]:
        """Keep the values of the calls made meanwhile; of several, the last ones."""

        def record(layer: int, v: Tensor) -> None:
            # A copy: V is a view that would keep the queries and keys in memory too.
            kept = v.detach().clone()
            self._store[key, layer] = kept if self._device is None else kept.to(self._device)

        with _hooks(self._places, record):
            yield

    @contextmanager
    def replaced(self, key: Hashable) -> Iterator[None]:
        """Put the values recorded under ``key`` in the place of those of the calls made meanwhile.

        A batch that is a multiple of the recorded one, as under classifier-free guidance, receives
        them as many times.

        Raises:
            KeyError: Nothing was recorded under the key.
            ValueError: The values are of another shape (raised by the call).
        """
        if (key, self._places[0][0]) not in self._store:
            raise KeyError(f"no values were recorded under {key}")

        def replace(layer: int, v: Tensor) -> Tensor:
            kept = self._store[key, layer]
            copies, rest = divmod(v.shape[0], kept.shape[0])
            if rest or v.shape[1:] != kept.shape[1:]:
                raise ValueError(
                    f"values of shape {tuple(kept.shape)} were recorded in attention layer {layer},"
                    f" which do not fit those of shape {tuple(v.shape)}"
                )
            return kept.to(v).repeat(copies, *([1] * (v.ndim - 1)))

        with _hooks(self._places, replace):
            yield


@contextmanager
def _hooks(
    places: Sequence[tuple[int, AttentionValues]], action: Callable[[int, Tensor], Tensor | None]
) -> Iterator[None]:
    """Let ``action`` see the values of every layer, and replace them unless it answers None."""
    handles = [
        place.register_forward_hook(lambda _module, _inputs, v, layer=layer: action(layer, v))
        for layer, place in places
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
