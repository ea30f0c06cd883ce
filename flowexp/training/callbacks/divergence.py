"""Weights that are not finite: found before they replace good ones in a checkpoint."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytorch_lightning import Trainer
from torch import Tensor

from flowexp.errors import UsageError
from flowexp.runs.weights import finite_checkpoint, not_finite

if TYPE_CHECKING:
    from flowexp.training.module import FlowModule

__all__ = ["NonFiniteWeightsError", "last_good", "refuse_stored", "require_finite_state"]


class NonFiniteWeightsError(RuntimeError):
    """A weight, an average or the optimizer's state became nan or infinite."""


def require_finite_state(trainer: Trainer, module: "FlowModule") -> None:
    """Stop a training before it stores what is not finite; call on every process.

    The loss need not show it: a step can overflow weights that the next batch has not met, and an
    average keeps a nan for ever.

    Raises:
        NonFiniteWeightsError: On every process, with step, images and the first such tensor.
    """
    bad = not_finite(dict(_state(module)))
    if trainer.strategy.reduce_boolean_decision(bad is None, all=True):
        return
    raise NonFiniteWeightsError(
        f"{bad or 'a weight of another process'} is not finite at step {module.step} "
        f"({module.kimg:g} kimg). Nothing of this step was saved; the last good checkpoint is "
        f"{last_good(module) or 'none'}. Lower optimizer.lr, or set trainer.grad_clip=1."
    )


def refuse_stored(module: "FlowModule", checkpoint: Path) -> None:
    """Refuse to continue from a checkpoint that is not finite, once it has been loaded.

    Raises:
        UsageError: With the first such tensor.
    """
    bad = not_finite(dict(_state(module)))
    if bad is not None:
        raise UsageError(
            f"the training cannot continue from {checkpoint}, in which {bad} is not finite.",
            key="dirs.run",
            remedy=f"The last good checkpoint is {last_good(module) or 'none'}. Remove the newer "
            f"ones, last.ckpt among them, to continue from there with a lower optimizer.lr.",
        )


def last_good(module: "FlowModule") -> Path | None:
    """The newest checkpoint of the run with finite weights and averages."""
    return finite_checkpoint(module.run, dict(module.network.named_parameters()).keys())


def _state(module: "FlowModule") -> Iterator[tuple[str, Tensor]]:
    """The trained tensors by names for a person, weights first."""
    names: dict[Tensor, str] = {p: name for name, p in module.network.named_parameters()}
    names |= {p: name for name, p in module.named_parameters() if p not in names}
    yield from ((name, parameter) for parameter, name in names.items())
    for average, tensors in module.averages.state().items():
        yield from ((f"{name} in the average {average}", t) for name, t in tensors.items())
    if not hasattr(module, "optimizer"):
        return  # a finished run has none
    for parameter, state in module.optimizer.state.items():
        for key, value in state.items():
            # The counter of steps may be on another device, which would cost the fused check.
            if isinstance(value, Tensor) and key != "step":
                yield f"{key} of {names[parameter]} in the optimizer", value
