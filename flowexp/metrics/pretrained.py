"""The base of pretrained extractors: loading, hashes, full-precision inference, checks."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from flowexp.files import file_sha256
from flowexp.metrics.base import Extractor
from flowexp.metrics.protocol import UINT8
from flowexp.metrics.weight_files import found_file

Channels = tuple[float, float, float]
IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION: Channels = (0.229, 0.224, 0.225)


@contextmanager
def without_tf32() -> Iterator[None]:
    """No TF32 in cuDNN's convolutions and cuBLAS's products, whatever was set before.

    Set per operator, since the older ``allow_tf32`` raises once these settings have been used.
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
    """No gradients, no autocast and no TF32 on this device: features are part of a protocol.

    cuDNN's convolutions take TF32 by default, which moves features by 1e-3.
    """
    precision = without_tf32() if device.type == "cuda" else nullcontext()
    with torch.inference_mode(), torch.autocast(device.type, enabled=False), precision:
        yield


def in_chunks(
    features: Callable[[Tensor], Tensor], images: Tensor, *, size: int, device: torch.device
) -> Tensor:
    """Features (B, d) of images (B, C, H, W), on a CPU computed for ``size`` of them at a time.

    Activations that fit into the cache make EfficientNet-Lite0 twice as fast, and those of a large
    batch at 299 x 299 would take gigabytes.
    """
    if device.type != "cpu" or len(images) <= size:
        return features(images)
    return torch.cat([features(part) for part in torch.split(images, size)])


def checked_images(images: Tensor) -> Tensor:
    """The same tensor; raises ``ValueError`` unless it is (B, 1 or 3, H, W), uint8."""
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 (quantise them once, before), got {images.dtype}")
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must be (B, 1 or 3, H, W), got shape {tuple(images.shape)}")
    return images


def as_rgb(images: Tensor) -> Tensor:
    """A view of images (B, 1 or 3, H, W) with three channels, a grey channel repeated."""
    return images.expand(-1, 3, -1, -1)


def normalized(
    levels: Tensor, *, mean: Channels = IMAGENET_MEAN, deviation: Channels = IMAGENET_DEVIATION
) -> Tensor:
    """``(v / 255 - mean) / deviation`` of each channel of levels v, (B, 1 or 3, H, W) in 0..255."""
    shift = levels.new_tensor(mean)[:, None, None]
    return (as_rgb(levels) / 255 - shift) / levels.new_tensor(deviation)[:, None, None]


class PretrainedExtractor(Extractor):
    """A frozen network from a weights file, loaded when first needed.

    Args:
        weights: The file or its directory; None looks in ``$FLOWEXP_WEIGHTS`` and torch's hub
            folders.

    Attributes:
        file_name: Name the file is published under, None when there is none.
        key: Config key of the file.
        remedy: Where to get the file.
        cpu_chunk: Images at a time on a CPU.
    """

    on_points: bool = False
    quantization = UINT8
    file_name: ClassVar[str | None] = None
    key: ClassVar[str]
    remedy: ClassVar[str]
    cpu_chunk: ClassVar[int]

    def __init__(self, *, weights: Path | str | None = None) -> None:
        self.weights = weights
        self.device = torch.device("cpu")

    @abstractmethod
    def network_with(self, file: Path) -> nn.Module:
        """The network with the weights of a file, in eval mode, on the CPU."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Features (b, d) of a few images (b, 1 or 3, H, W), uint8; see :meth:`__call__`."""

    def checked_file(self) -> Path:
        """The weights file; raises ``UsageError`` if it is missing or wrong."""
        return found_file(
            self.file_name,
            given=self.weights,
            what=self.name.partition(" ")[0],
            key=self.key,
            remedy=self.remedy,
        )

    @property
    def weights_sha256(self) -> str:
        return file_sha256(self.checked_file())

    @cached_property
    def network(self) -> nn.Module:
        """The loaded network, in eval mode."""
        return self.network_with(self.checked_file())

    def check(self) -> None:
        self.checked_file()

    def load(self, *, device: torch.device | str = "cpu") -> Self:
        self.device = torch.device(device)
        self.network.to(self.device)
        return self

    def __call__(self, images: Tensor) -> Tensor:
        checked_images(images)
        # parameters made in inference mode could not be moved afterwards
        self.load(device=self.device)
        with float32_inference(self.device):
            return in_chunks(self.features, images, size=self.cpu_chunk, device=self.device)
