"""The values of attention layers, recorded in one call of a network and injected in another.

Every attention layer passes its values V through an :class:`AttentionValues`, an identity module
on which hooks read or replace them.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["AttentionValues", "SharedValues", "attention_values"]


class AttentionValues(nn.Identity):
    """Where hooks find the values V of an attention layer: (B, heads, tokens, head's channels)."""


def attention_values(network: nn.Module) -> list[AttentionValues]:
    """The value modules of a network's attention layers, in order of registration."""
    return [m for m in network.modules() if isinstance(m, AttentionValues)]


class SharedValues:
    """Values of attention layers, recorded under keys and injected in later calls.

    Args:
        first_layer: Number of the first layer whose values are shared.
        device: Where recorded values are stored; None = where they are computed. ``cpu`` saves the
            accelerator's memory: there is one tensor per call and layer.

    Raises:
        ValueError: The network has no attention layer from ``first_layer`` on.

    Source: Wang et al., RF-Solver, 2024, arXiv 2411.04746, section 3.3, with code.
    """

    def __init__(
        self, network: nn.Module, *, first_layer: int = 0, device: torch.device | str | None = None
    ) -> None:
        places = attention_values(network)
        if not 0 <= first_layer < len(places):
            raise ValueError(
                f"first_layer is {first_layer}, but {type(network).__name__} has {len(places)} "
                f"attention layers"
            )
        self._places = list(enumerate(places))[first_layer:]
        self._device = device
        self._store: dict[tuple[Hashable, int], Tensor] = {}

    @property
    def keys(self) -> set[Hashable]:
        """The keys with recorded values."""
        return {key for key, _ in self._store}

    @contextmanager
    def recorded(self, key: Hashable) -> Iterator[None]:
        """Record the values of calls inside the context; of several calls, the last."""

        def record(layer: int, v: Tensor) -> None:
            # A copy: V is a view, which would keep the queries and keys in memory too.
            kept = v.detach().clone()
            self._store[key, layer] = kept if self._device is None else kept.to(self._device)

        with _hooks(self._places, record):
            yield

    @contextmanager
    def replaced(self, key: Hashable) -> Iterator[None]:
        """Replace the values of calls inside the context by those recorded under ``key``.

        For a batch that is a multiple of the recorded one, as under classifier-free guidance, they
        are repeated.

        Raises:
            KeyError: Nothing was recorded under the key.
            ValueError: The values have another shape (raised by the call).
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
    """Call ``action`` with the values of every layer; its result replaces them unless None."""
    handles = [
        place.register_forward_hook(lambda _module, _inputs, v, layer=layer: action(layer, v))
        for layer, place in places
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
