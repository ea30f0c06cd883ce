"""Checks of the values that parts return against their protocols, for the trial step only."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flowexp.couplings import Pairs
from flowexp.errors import UsageError
from flowexp.networks import Network
from flowexp.objectives import Loss
from flowexp.samplers import Samples
from flowexp.training.parts import TrainingParts

__all__ = ["Observed", "observe"]

_REAL_CALLS = 2
_STATES = (torch.float32, torch.float64)


class Observed:
    """Observations of the parts; ``sampled`` is whether the sampler was called."""

    sampled = False


def observe(parts: TrainingParts) -> Observed:
    """Make parts raise a :class:`UsageError` when they return what their protocol does not allow.

    During sampling the network is evaluated twice and then repeats its output, so that a sampler
    with many steps stays cheap.
    """
    observed = Observed()
    _replace(parts.objective, "loss", _checked_loss)
    _replace(parts.coupling, "pair", _checked_pairs)
    _replace(parts.model.network, "forward", _frugal_forward)
    if parts.pipeline is not None:

        def checked(inner: Callable[..., Any], sampler: object) -> Callable[..., Any]:
            return _checked_sample(inner, sampler, observed)

        _replace(parts.pipeline.sampler, "sample", checked)
    return observed


def _replace(part: object, name: str, change: Callable[[Callable[..., Any], Any], Any]) -> None:
    """Replace a method of one object, which may be frozen."""
    object.__setattr__(part, name, change(getattr(part, name), part))


def _wrong(key: str, part: object, what: str, wanted: str) -> UsageError:
    return UsageError(
        f"{type(part).__name__}.{what}; expected {wanted}.",
        key=key,
        remedy="Nothing was trained: the trial step before the training found it.",
    )


def _kind(value: object) -> str:
    """A value in words."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a {dtype} tensor of shape {tuple(value.shape)} on {value.device.type}"
    return "None" if value is None else f"an object of type {type(value).__name__}"


def _alike(value: object, like: Tensor) -> bool:
    """Whether a value is a tensor of the same shape and device, not in half precision."""
    return (
        isinstance(value, Tensor)
        and value.shape == like.shape
        and value.device.type == like.device.type
        and value.dtype in _STATES
    )


def _shape(like: Tensor) -> str:
    return f"float32 or float64 of shape {tuple(like.shape)} on {like.device.type}"


def _checked_loss(inner: Callable[..., Any], objective: object) -> Callable[..., Any]:
    def loss(model: Any, pairs: Pairs, t: Tensor, **others: Any) -> Loss:  # noqa: ANN401
        found = inner(model, pairs, t, **others)
        if not isinstance(found, Loss):
            wanted = "a flowexp.objectives.Loss"
            raise _wrong("objective", objective, f"loss returns {_kind(found)}", wanted)
        value, t = found.per_sample, t if t.ndim == 1 else t[:, 0]
        if not _alike(value, t):
            what = f"loss returns Loss(per_sample) with {_kind(value)}"
            raise _wrong("objective", objective, what, f"one loss per sample, {_shape(t)}")
        if not value.requires_grad:
            what = "loss returns a loss without a gradient"
            raise _wrong("objective", objective, what, "a loss that depends on the network")
        return found

    return loss


def _checked_pairs(inner: Callable[..., Any], coupling: object) -> Callable[..., Any]:
    def pair(x: Tensor, e: Tensor, *others: Any, **named: Any) -> Pairs:  # noqa: ANN401
        found = inner(x, e, *others, **named)
        if not isinstance(found, Pairs):
            wanted = "a flowexp.couplings.Pairs"
            raise _wrong("coupling", coupling, f"pair returns {_kind(found)}", wanted)
        for name, value in (("x", found.x), ("e", found.e)):
            if not _alike(value, x):
                what = f"pair returns Pairs with {name} as {_kind(value)}"
                raise _wrong("coupling", coupling, what, _shape(x))
        return found

    return pair


def _frugal_forward(inner: Callable[..., Any], network: nn.Module) -> Callable[..., Any]:
    foreign = not isinstance(network, Network) and not type(network).__module__.startswith(
        "flowexp."
    )
    calls = 0
    last: Tensor | None = None

    def forward(x: Tensor, *others: Any, **named: Any) -> Tensor:  # noqa: ANN401
        nonlocal calls, last
        drawing = torch.is_inference_mode_enabled()
        if drawing and calls >= _REAL_CALLS and last is not None and len(last) == len(x):
            return last.clone()
        found: Tensor = inner(x, *others, **named)
        if foreign and (not isinstance(found, Tensor) or found.shape != x.shape):
            what = f"forward returns {_kind(found)}"
            raise _wrong("network", network, what, f"the shape of the state, {tuple(x.shape)}")
        if drawing:
            calls, last = calls + 1, found
        return found

    return forward


def _checked_sample(
    inner: Callable[..., Any], sampler: object, observed: Observed
) -> Callable[..., Any]:
    def sample(model: Any, e: Tensor, **named: Any) -> Samples:  # noqa: ANN401
        observed.sampled = True

        def check(t: Tensor, x: Tensor) -> None:
            if not _alike(x, e):
                what = f"sample passes through {_kind(x)} at t={float(t.max()):.4g}"
                raise _wrong("sampler", sampler, what, _shape(e))

        found = inner(model, e, **{**named, "on_step": check})
        if not isinstance(found, Samples):
            wanted = "a flowexp.samplers.Samples"
            raise _wrong("sampler", sampler, f"sample returns {_kind(found)}", wanted)
        if not _alike(found.x, e):
            what = f"sample returns Samples with x as {_kind(found.x)}"
            raise _wrong("sampler", sampler, what, _shape(e))
        return found

    return sample
