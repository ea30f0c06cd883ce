"""Lower precision for the network alone: paths, times, losses and weights keep theirs."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flowexp.errors import UsageError
from flowexp.models import FlowModel
from flowexp.networks.foreign import call_network

__all__ = ["AutocastNetwork", "gradient_scaler", "matmul_precision", "with_precision"]

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class AutocastNetwork(nn.Module):
    """A network whose calls run under autocast; its output is float32.

    Autocast around a whole training step would also lower the precision of couplings (distance
    matrices) and losses.

    Args:
        network: The network; attributes that this class lacks are the network's.
        dtype: The lower precision.
    """

    def __init__(self, network: nn.Module, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        **conditions: Tensor | None,
    ) -> Tensor:
        """The network under autocast."""
        with torch.autocast(x.device.type, dtype=self.dtype):
            output = call_network(self.network, x, c_noise, {"labels": labels, **conditions})
        return output.float()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)


def with_precision(model: FlowModel, precision: str) -> FlowModel:
    """The model with its network under autocast, if the precision is a mixed one.

    The network is shared, not copied.
    """
    if precision not in _AUTOCAST:
        return model
    lowered = copy.copy(model)
    lowered.network = AutocastNetwork(model.network, dtype=_AUTOCAST[precision])
    return lowered


def gradient_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler | None:
    """The loss scaler that float16 gradients need, or None.

    Raises:
        UsageError: float16 on a device other than CUDA.
    """
    if precision != "16-mixed":
        return None
    if device.type != "cuda":
        raise UsageError(
            f"16-mixed is not available on {device.type}.",
            key="trainer.precision",
            remedy="Use bf16-mixed or 32-true.",
        )
    return torch.amp.GradScaler(device.type)


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
