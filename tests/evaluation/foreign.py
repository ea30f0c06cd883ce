"""torchmetrics metrics as somebody outside writes them."""

import torch
import torchmetrics
from torch import Tensor, nn


class Projection(nn.Module):
    """Features of uint8 pictures by a fixed random matrix, in place of Inception."""

    num_features = 5

    def __init__(self) -> None:
        super().__init__()
        rows = torch.randn(27, 5, generator=torch.Generator().manual_seed(0))
        self.register_buffer("rows", rows)

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        assert images.shape[1] == 3
        return (images.flatten(1).float() / 255) @ self.rows


class Brightness(torchmetrics.Metric):
    """Mean and greatest brightness of pictures in [0, 1]; a mapping of numbers."""

    total: Tensor
    count: Tensor
    greatest: Tensor

    def __init__(self, *, power: float = 1.0) -> None:
        super().__init__()
        self.power = power
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("greatest", torch.zeros(()), dist_reduce_fx="max")

    def update(self, imgs: Tensor) -> None:
        assert imgs.is_floating_point()
        each = imgs.double().mean((1, 2, 3)) ** self.power
        self.total += each.sum()
        self.count += len(imgs)
        self.greatest = torch.maximum(self.greatest, imgs.max())

    def compute(self) -> dict[str, Tensor]:
        return {"mean": self.total / self.count, "greatest": self.greatest}


class FromGenerator(torchmetrics.Metric):
    """Takes a model, which samples are not."""

    def update(self, generator: nn.Module) -> None: ...

    def compute(self) -> Tensor:
        return torch.zeros(())
