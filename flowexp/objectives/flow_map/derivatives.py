"""Directional derivatives of a model: forward mode, or a central difference."""

import functools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from flowexp.requirements import Part, Parts, Unmet

__all__ = ["JVP", "CentralDifference", "Derivative", "forward_mode"]

Function = Callable[..., Tensor]


class Derivative(Part, ABC):
    """How a function is differentiated along a direction.

    Attributes:
        forward_mode: Whether it is forward-mode differentiation, which not every layer allows.
    """

    forward_mode: bool = False

    @abstractmethod
    def along(
        self, function: Function, at: tuple[Tensor, ...], direction: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """``f(a)`` and ``d/dh f(a + h d)`` at h = 0; both have a gradient if gradients are on.

        ``at`` and ``direction`` are tensors of equal shapes, one per argument of the function.
        """


class JVP(Derivative):
    """Forward-mode differentiation: exact, at about twice the cost of the function.

    Attention runs on torch's "math" kernel meanwhile, the only one with a forward derivative.
    """

    forward_mode = True

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network that is not compiled: torch runs it, and every later call, uncompiled then."""
        if parts.trainer.compile:
            problem = "torch cannot differentiate a compiled network in forward mode, as JVP does."
            remedy = "Set it to false, or objective/leg/derivative=difference."
            yield Unmet("trainer.compile", problem, remedy)

    def along(
        self, function: Function, at: tuple[Tensor, ...], direction: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        with forward_mode():
            value, derivative, *_ = torch.func.jvp(function, at, direction)
        return value, derivative


class CentralDifference(Derivative):
    """``(f(a + h d) - f(a - h d)) / 2h``: two further calls, on any attention kernel.

    All three calls draw the same numbers from torch's global generators: with another dropout mask
    each, the difference would be noise over h.

    Args:
        step: h, > 0, in units of the direction. The error is of order ``h^2`` plus that of the
            network's float32 rounding over h.

    Source: NVIDIA, FastGen (``use_jvp_finite_diff``).
    """

    def __init__(self, *, step: float = 5e-3) -> None:
        if not step > 0.0:
            raise ValueError(f"step is {step}; expected a positive number")
        self.step = float(step)

    def along(
        self, function: Function, at: tuple[Tensor, ...], direction: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        h = self.step
        around = []
        for sign in (1.0, -1.0):
            with _put_back(at[0].device):
                moved = (a + sign * h * d for a, d in zip(at, direction, strict=True))
                around.append(function(*moved))
        return function(*at), (around[0] - around[1]) / (2.0 * h)


def _put_back(device: torch.device) -> AbstractContextManager[None]:
    """A context after which torch's global generators stand where they stood."""
    if device.type == "cpu":
        return torch.random.fork_rng([])
    return torch.random.fork_rng([device], device_type=device.type)


@contextmanager
def forward_mode() -> Iterator[None]:
    """Where ``torch.func.jvp`` works: attention in the one form that has a forward derivative."""
    _load_rules()
    with sdpa_kernel(SDPBackend.MATH):
        yield


@functools.cache
def _load_rules() -> None:
    """Let torch load its rules of forward mode, of whose own deprecated compiler it would warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated")
        with forward_ad.dual_level():
            forward_ad.make_dual(torch.zeros(()), torch.zeros(()))  # type: ignore[no-untyped-call]
