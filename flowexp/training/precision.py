"""Lower precision for the network alone: paths, times, losses and weights keep theirs."""

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins.precision import Precision
from torch import Tensor, nn
from torch.optim import Optimizer

from flowexp.errors import UsageError
from flowexp.models import FlowModel
from flowexp.networks.foreign import WrappedNetwork

__all__ = ["LossScaling", "check_precision", "matmul_precision", "with_precision"]

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class AutocastNetwork(WrappedNetwork):
    """A network whose calls run under autocast to ``dtype``; its output is float32.

    Autocast around a whole training step would also lower the precision of couplings (distance
    matrices) and losses.
    """

    def __init__(self, network: nn.Module, *, dtype: torch.dtype) -> None:
        super().__init__(network)
        self.dtype = dtype

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        **conditions: Tensor | None,
    ) -> Tensor:
        with torch.autocast(x.device.type, dtype=self.dtype):
            output = super().forward(x, c_noise, labels, **conditions)
        return output.float()


def with_precision(model: FlowModel, precision: str) -> FlowModel:
    """The model, with the same network under autocast if the precision is a mixed one."""
    if precision not in _AUTOCAST:
        return model
    lowered = copy.copy(model)
    lowered.network = AutocastNetwork(model.network, dtype=_AUTOCAST[precision])
    return lowered


class LossScaling(Precision):
    """Scales the loss so that float16 gradients do not underflow; CUDA only.

    Lightning's own mixed precision would also run the training step under autocast.
    """

    @functools.cached_property
    def scaler(self) -> torch.amp.GradScaler:
        """The scale, which grows until gradients overflow; part of a checkpoint."""
        return torch.amp.GradScaler("cuda")

    def pre_backward(self, tensor: Tensor, module: LightningModule) -> Tensor:  # type: ignore[override]
        return super().pre_backward(self.scaler.scale(tensor), module)

    def optimizer_step(  # type: ignore[override]
        self,
        optimizer: Optimizer,
        model: LightningModule,
        closure: Callable[[], Any],
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Step with unscaled gradients, unless they overflowed."""
        result = closure()
        self.scaler.unscale_(optimizer)
        self._after_closure(model, optimizer)
        self.scaler.step(optimizer, **kwargs)
        self.scaler.update()
        return result


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse float16 on a device other than CUDA.

    Raises:
        UsageError: Under the key ``trainer.precision``.
    """
    if precision == "16-mixed" and device.type != "cuda":
        raise UsageError(
            f"16-mixed is not available on {device.type}.",
            key="trainer.precision",
            remedy="Use bf16-mixed or 32-true.",
        )


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """TF32 matrix products and convolutions for ``tf32``, else full float32, while it lasts."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
