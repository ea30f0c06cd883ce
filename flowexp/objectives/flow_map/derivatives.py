"""Directional derivatives of a model: forward-mode differentiation or a central difference."""

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
        forward_mode: Whether it uses forward-mode differentiation; not every layer supports it.
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
        """``f(a)`` and ``d/dh f(a + h d)`` at h = 0; both are differentiable if gradients are on.

        ``at`` and ``direction`` hold one tensor per argument of the function, of equal shapes.
        ``room`` limits the steps backwards and forwards to where the function is defined, in units
        of the direction, (B,), float64; None = no limit.
        """

    def slope(
        self,
        function: Function,
        at: tuple[Tensor, ...],
        direction: tuple[Tensor, ...],
        *,
        room: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The derivative alone, which may be cheaper than with the value."""
        return self.along(function, at, direction, room=room)[1]


class JVP(Derivative):
    """Forward-mode differentiation (Jacobian-vector product), exact.

    Attention uses torch's "math" kernel, the only one that supports forward mode. The cost depends
    on the layers: about twice that of the function at best, more with convolutions.
    """

    forward_mode = True

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """A network that is not compiled; forward mode would make torch run it uncompiled."""
        if parts.trainer.compile:
            problem = "JVP needs forward mode, which torch does not support in compiled networks."
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
    """``(f(a + h d) - f(a - h d)) / 2h``: two calls, with any attention kernel.

    Steps are shortened at the ends of the time range, where the difference becomes one-sided.

    The two calls, and that of the value, draw the same numbers from torch's global generators. With
    different dropout masks the difference would be noise divided by h.

    Args:
        step: h, > 0, in units of the direction. The truncation error is of order ``h^2`` (``h``
            near the ends); the network's float32 rounding error is divided by h.

    Raises:
        ValueError: step is not positive.

    Source: NVIDIA, FastGen (``use_jvp_finite_diff``).
    """

    def __init__(self, *, step: float = 5e-3) -> None:
        if not step > 0.0:
            raise ValueError(f"step is {step}; expected a positive number")
        self.step = float(step)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """Full precision: rounding errors of lower precisions, divided by h, would dominate."""
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
        slope = self.slope(function, at, direction, room=room)  # first: it restores the generators
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
    """A context that restores the states of torch's global generators on exit."""
    if device.type == "cpu":
        return torch.random.fork_rng([])
    return torch.random.fork_rng([device], device_type=device.type)


@contextmanager
def forward_mode() -> Iterator[None]:
    """A context in which ``torch.func.jvp`` works: attention uses the math kernel."""
    _load_rules()
    with sdpa_kernel(SDPBackend.MATH):
        yield


@functools.cache
def _load_rules() -> None:
    """Load torch's forward-mode rules once, without the deprecation warning that torch triggers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated")
        with forward_ad.dual_level():
            forward_ad.make_dual(torch.zeros(()), torch.zeros(()))  # type: ignore[no-untyped-call]
