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

from flowexp.broadcast import expand_as
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
        self,
        function: Function,
        at: tuple[Tensor, ...],
        direction: tuple[Tensor, ...],
        *,
        room: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``f(a)`` and ``d/dh f(a + h d)`` at h = 0; both have a gradient if gradients are on.

        ``at`` and ``direction`` are tensors of equal shapes, one per argument of the function.
        ``room`` is how far the function is defined backwards and forwards, in units of the
        direction, (B,), float64; None = anywhere.
        """

    def slope(
        self,
        function: Function,
        at: tuple[Tensor, ...],
        direction: tuple[Tensor, ...],
        *,
        room: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The derivative alone, which may be cheaper."""
        return self.along(function, at, direction, room=room)[1]


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
        self,
        function: Function,
        at: tuple[Tensor, ...],
        direction: tuple[Tensor, ...],
        *,
        room: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        with forward_mode():
            value, derivative, *_ = torch.func.jvp(function, at, direction)
        return value, derivative


class CentralDifference(Derivative):
    """``(f(a + h d) - f(a - h d)) / 2h``: two calls, on any attention kernel.

    Steps end where the function does, so that rows near the ends of time have a one-sided
    difference. All calls, that of the value included, draw the same numbers from torch's
    global generators: with another dropout mask each, the difference would be noise over h.

    Args:
        step: h, > 0, in units of the direction. The error is of order ``h^2`` (``h`` near the ends)
            plus that of the network's float32 rounding over h.

    Source: NVIDIA, FastGen (``use_jvp_finite_diff``).
    """

    def __init__(self, *, step: float = 5e-3) -> None:
        if not step > 0.0:
            raise ValueError(f"step is {step}; expected a positive number")
        self.step = float(step)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Full precision: the rounding of lower ones, over h, is larger than the derivative."""
        precision = parts.trainer.precision
        if precision != "32-true":
            problem = f"CentralDifference divides rounding errors of {precision} by {self.step:g}."
            remedy = "Set trainer.precision=32-true, or objective/leg/derivative=jvp."
            yield Unmet("trainer.precision", problem, remedy)

    def along(
        self,
        function: Function,
        at: tuple[Tensor, ...],
        direction: tuple[Tensor, ...],
        *,
        room: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        slope = self.slope(function, at, direction, room=room)  # leaves the generators as they are
        return function(*at), slope

    def slope(
        self,
        function: Function,
        at: tuple[Tensor, ...],
        direction: tuple[Tensor, ...],
        *,
        room: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        if room is None:
            back = ahead = at[0].new_full((len(at[0]),), self.step, dtype=torch.float64)
        else:
            back, ahead = (one_way.clamp(max=self.step) for one_way in room)
        around = []
        for h in (-back, ahead):
            with _put_back(at[0].device):
                moved = (a + expand_as(h.to(a), a) * d for a, d in zip(at, direction, strict=True))
                around.append(function(*moved))
        before, after = around
        return (after - before) / expand_as((back + ahead).to(after), after)


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
