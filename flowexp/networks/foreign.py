"""Modules of other packages as networks: any ``F(x, t)`` or ``F(x, t, labels)``."""

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from flowexp.errors import UsageError
from flowexp.networks.base import NO_LABEL, Network, with_new_scalars
from flowexp.networks.memory import Memory

__all__ = ["FrozenNetwork", "WrappedNetwork", "adopt", "call_network", "takes_labels"]

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_LABELS = inspect.Parameter("labels", inspect.Parameter.KEYWORD_ONLY, default=None)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def adopt(network: nn.Module, *, classes: int, key: str) -> None:
    """Check a network's ``forward``, and set ``label_dim`` on a module that does not state it.

    That is ``classes``, the number of classes of the data, if the module takes labels, else 0. The
    network's config ``key`` is for messages.

    Raises:
        UsageError: ``forward`` cannot be called with a state and a time.
    """
    parameters = _parameters(type(network).forward)
    names = [p.name for p in parameters if p.kind in _BY_POSITION]
    if len(names) < 2 and not any(p.kind in _VARIADIC for p in parameters):
        raise UsageError(
            f"{type(network).__name__}.forward takes ({', '.join(names)}), not a state and a time.",
            key=key,
            remedy="A network is a module with forward(x, t) or forward(x, t, labels).",
        )
    if not hasattr(network, "label_dim"):
        known = classes if takes_labels(network) else 0
        network.label_dim = known  # type: ignore[assignment]  # not a tensor, unlike other state


def takes_labels(network: nn.Module) -> bool:
    """Whether ``forward`` has a parameter for labels: one of that name, else its third."""
    return _labels_parameter(network) is not None


def call_network(
    network: nn.Module, x: Tensor, c_noise: Tensor, conditions: Mapping[str, Tensor | None]
) -> Tensor:
    """``F(x, c_noise, labels)`` of any module, with the further conditions by name.

    ``labels``, (B,) int64 with -1 for "no label" or float vectors, goes to the third parameter of a
    ``forward`` that has none of that name; where it has no default, missing labels are -1.

    Raises:
        ValueError: Labels are given to a module that takes none.
    """
    rest = dict(conditions)
    if not isinstance(network, Network):
        parameter, labels = _labels_parameter(network), rest.pop("labels", None)
        if parameter is None:
            if labels is not None:
                raise ValueError(f"{type(network).__name__}.forward takes no labels")
        elif labels is not None:
            rest[parameter.name] = labels
        elif parameter.default is inspect.Parameter.empty:
            rest[parameter.name] = torch.full((len(x),), NO_LABEL, device=x.device)
    output: Tensor = network(x, c_noise, **rest)
    return output


class WrappedNetwork(nn.Module):
    """A module around a network, whose attributes it has where it lacks its own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        **conditions: Tensor | None,
    ) -> Tensor:
        """The network; see :func:`call_network`."""
        return call_network(self.network, x, c_noise, {"labels": labels, **conditions})

    def remembering(self, memory: Memory) -> Self:
        """This module around the network with a memory; see :meth:`Network.remembering`."""
        inner: Any = self.network
        remembering = copy.copy(self)
        remembering._modules = {**self._modules, "network": inner.remembering(memory)}
        return remembering

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)


class FrozenNetwork(WrappedNetwork):
    """A module that trains additions to a network, whose own parameters are frozen.

    Those start from the weights of a run of the plain network, with ``init``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        network.requires_grad_(False)

    def plain_names(self) -> dict[str, str]:
        """Names in the state dict of ``self.network``, with those of the plain network."""
        return {name: name for name in self.network.state_dict()}

    def load_base(self, state: dict[str, Tensor]) -> None:
        """Load the state dict of the plain network; additions are kept, and new scalars inert.

        Raises:
            UsageError: It belongs to another network.
        """
        own, plain = self.network.state_dict(), self.plain_names()
        here = {base: own[name] for name, base in plain.items()}
        state = with_new_scalars(self.network, state, here)
        only_one = sorted(here.keys() ^ state.keys())
        if only_one:
            raise UsageError(
                f"the weights belong to another network; {only_one[0]} is only in one."
            )
        for base, tensor in here.items():
            if tensor.shape != state[base].shape:
                raise UsageError(
                    f"the weights belong to another network; {base} is "
                    f"{tuple(state[base].shape)}, here it is {tuple(tensor.shape)}."
                )
        self.network.load_state_dict(own | {name: state[base] for name, base in plain.items()})


def _parameters(forward: Callable[..., object]) -> list[inspect.Parameter]:
    return list(inspect.signature(forward).parameters.values())[1:]


# A cache that torch.compile can look into, unlike functools.cache.
_FOUND: dict[type[nn.Module], inspect.Parameter | None] = {}


def _labels_parameter(network: nn.Module) -> inspect.Parameter | None:
    cls = type(network)
    if cls not in _FOUND:
        parameters = _parameters(cls.forward)
        named = [p for p in parameters if p.name == "labels"]
        third = [p for p in parameters[2:] if p.kind in _BY_POSITION]
        anything = [_LABELS for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
        _FOUND[cls] = next(iter([*named, *third, *anything]), None)
    return _FOUND[cls]
