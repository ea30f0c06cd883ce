"""What pretrained extractors share: loading, hashes, full-precision inference, checks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn


@contextmanager
def without_tf32() -> Iterator[None]:
    """No TF32 in cuDNN's convolutions and cuBLAS's products, whatever was set before.

    By the settings per operator: the older ``allow_tf32`` raises once somebody has used these.
    """
    conv = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # missing from torch's stubs
    operators = (conv, torch.backends.cuda.matmul)
    before = [operator.fp32_precision for operator in operators]
    try:
        for operator in operators:
            operator.fp32_precision = "ieee"
        yield
    finally:
        for operator, precision in zip(operators, before, strict=True):
            operator.fp32_precision = precision


@contextmanager
def float32_inference(device: torch.device) -> Iterator[None]:
    """No gradients, no autocast and no TF32: features are part of a protocol.

    cuDNN's convolutions take TF32 by default, which moves features by 1e-3.

    Args:
        device: Where the network runs.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cuda":
            stack.enter_context(without_tf32())
        yield


def in_chunks(
    features: Callable[[Tensor], Tensor], images: Tensor, *, size: int, device: torch.device
) -> Tensor:
    """Features of a batch, on a CPU computed for a few images at a time.

    Activations that fit into the cache make EfficientNet-Lite0 twice as fast, and those of a large
    batch at 299 x 299 would take gigabytes.

    Args:
        features: Map from (b, C, H, W) to (b, d).
        images: (B, C, H, W).
        size: Images at a time on a CPU.
        device: Where ``features`` runs.
    """
    if device.type != "cpu" or len(images) <= size:
        return features(images)
    starts = range(0, len(images), size)
    return torch.cat([features(images[start : start + size]) for start in starts])


def checked_images(images: Tensor) -> Tensor:
    """The same tensor, if it is a batch of quantised images.

    Args:
        images: (B, 1 or 3, H, W), uint8.

    Raises:
        ValueError: If the type, the number of axes or of channels is another.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 (quantise them once, before), got {images.dtype}")
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must be (B, 1 or 3, H, W), got shape {tuple(images.shape)}")
    return images


def as_rgb(images: Tensor) -> Tensor:
    """Images as a view of three channels, a grey channel repeated.

    Args:
        images: (B, 1 or 3, H, W).
    """
    return images.expand(-1, 3, -1, -1)


class PretrainedExtractor(ABC):
    """A frozen network from a weights file, loaded when first needed.

    A subclass says which file, which network and which features.

    Attributes:
        cpu_chunk: Images at a time on a CPU.
        on_points: Whether points have these features, as well as pictures.
    """

    cpu_chunk: int
    on_points: bool = False

    def __init__(self) -> None:
        self._network: nn.Module | None = None
        self._device = torch.device("cpu")

    @abstractmethod
    def checked_file(self) -> Path:
        """The weights file.

        Raises:
            UsageError: It is missing, or another file.
        """

    @abstractmethod
    def network_with(self, file: Path) -> nn.Module:
        """The network with these weights, in eval mode, on the CPU."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Features (b, d) of a few images (b, 1 or 3, H, W), uint8; see :meth:`__call__`."""

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._device

    @property
    def network(self) -> nn.Module:
        """The loaded network, in eval mode."""
        if self._network is None:
            self._network = self.network_with(self.checked_file()).to(self._device)
        return self._network

    def check(self) -> None:
        """Raise ``UsageError`` when the weights file is missing or another file."""
        self.checked_file()

    def load(self, *, device: torch.device | str = "cpu") -> Self:
        """Load the weights (once) and move them to ``device``."""
        self._device = torch.device(device)
        self.network.to(self._device)
        return self

    def __call__(self, images: Tensor) -> Tensor:
        """Features of a batch.

        Args:
            images: (B, 1 or 3, H, W) uint8.

        Returns:
            (B, dim) float32 on the network's device.
        """
        checked_images(images)
        # parameters made in inference mode could not be moved afterwards
        self.load(device=self._device)
        with float32_inference(self._device):
            return in_chunks(self.features, images, size=self.cpu_chunk, device=self._device)
