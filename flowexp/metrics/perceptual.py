"""Differentiable perceptual distances: frozen networks compared layer by layer.

A distance is a plain callable, not an ``nn.Module``, so that its weights do not enter its owner's
state dict, optimizer or average. The network is loaded when first needed and follows the device of
its input. Images are (B, C, H, W) in [-1, 1]; a grey channel is repeated.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.metrics.efficientnet import EfficientNetLite0
from flowexp.metrics.pretrained import as_rgb

_EPS = 1e-8


class FeatureDistance(ABC):
    """A perceptual distance between images by features of a frozen network.

    Args:
        resize: Side that images are brought to first (bilinear, centred grid, low-passed only when
            shrinking); None keeps their size.

    Attributes:
        metric: What it is called in titles.
        smallest: Smallest side the network takes.

    Raises:
        ValueError: If ``resize`` is below ``smallest``.
    """

    metric: str
    smallest: int

    def __init__(self, *, resize: int | None) -> None:
        if resize is not None and resize < self.smallest:
            raise ValueError(f"resize must be at least {self.smallest} or None, got {resize}")
        self.resize = resize

    @property
    @abstractmethod
    def features_name(self) -> str:
        """Full name of network, weights and layers."""

    @property
    @abstractmethod
    def weights_sha256(self) -> str:
        """SHA-256 of the network's weights file."""

    @property
    def resize_name(self) -> str:
        """How images are brought to the network's size."""
        return "none" if self.resize is None else f"torch bilinear to {self.resize}"

    @abstractmethod
    def check(self) -> None:
        """Raise ``UsageError`` when the weights are missing or wrong; ``key`` names which."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The network with its weights, frozen, in eval mode, on the CPU."""

    @abstractmethod
    def compare(self, network: nn.Module, a: Tensor, b: Tensor) -> Tensor:
        """The distance, (B,), of images (B, 3, H, W) in [-1, 1] of the network's size."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance, (B,) >= 0, of images (B, 1 or 3, H, W) in [-1, 1], differentiable in both.

        Computed in float32, also under autocast.

        Raises:
            ValueError: If the shapes do not fit, or the images are too small for the network.
            UsageError: If the weights are missing.
        """
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] not in (1, 3):
            raise ValueError(
                "images must be two (B, 1 or 3, H, W) of one shape, got "
                f"{tuple(a.shape)} and {tuple(b.shape)}"
            )
        if self.resize is None and min(a.shape[-2:]) < self.smallest:
            raise ValueError(
                f"{self.metric} needs images of at least {self.smallest} pixels a side, got "
                f"{tuple(a.shape[-2:])}; resize={self.smallest} or more brings them there"
            )
        # weights made or moved in inference mode could never be differentiated through afterwards
        with torch.inference_mode(False):
            network = self._network
            if next(network.parameters()).device != a.device:
                network.to(a.device)
        with torch.autocast(a.device.type, enabled=False):
            return self.compare(network, self._sized(a), self._sized(b))

    @cached_property
    def _network(self) -> nn.Module:
        return self.build()

    def _sized(self, images: Tensor) -> Tensor:
        pixels, size = as_rgb(images.float()), self.resize
        if size is None or pixels.shape[-2:] == (size, size):
            return pixels
        # the flag changes nothing when enlarging, but is slower
        shrinks = max(pixels.shape[-2:]) > size
        return F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=shrinks)


def unit_vectors(features: Tensor) -> Tensor:
    """Features (B, C, H, W) over their length at each position, sqrt(1e-8 + sum_c f_c^2)."""
    return features / (_EPS + features.square().sum(1, keepdim=True)).sqrt()


class EfficientNetPerceptual(FeatureDistance):
    """EfficientNet-Lite0 distance: mean over layers and positions of |f(a) - f(b)|^2, f unit long.

    LPIPS's construction without its learned weights, on a network whose weights are an ordinary
    Python package. It is not LPIPS and has another scale (0..4).

    Args:
        layers: Stages 0..6 whose output is compared, ascending.
        weights: Local weights file; None takes the installed package's.

    Raises:
        ValueError: If ``layers`` or ``resize`` is impossible.

    Source: our construction, after Zhang et al. 2018, arXiv 1801.03924, eq. 1 with w = 1 / C.
    """

    metric = "EfficientNet-Lite0 perceptual distance"
    smallest = 32

    def __init__(
        self,
        *,
        layers: Sequence[int] = (0, 1, 2, 3, 4),
        resize: int | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__(resize=resize)
        chosen = tuple(layers)
        if not chosen or chosen != tuple(sorted({*chosen} & {*range(7)})):
            raise ValueError(f"layers must be ascending stages of 0..6, got {list(layers)}")
        self.layers = chosen
        self._extractor = EfficientNetLite0(weights=weights)

    @property
    def features_name(self) -> str:
        """For example ``EfficientNet-Lite0 b0 b1 b2 b3 b4``."""
        return " ".join(["EfficientNet-Lite0", *(f"b{layer}" for layer in self.layers)])

    @property
    def weights_sha256(self) -> str:
        return self._extractor.weights_sha256

    def check(self) -> None:
        self._extractor.check()

    def build(self) -> nn.Module:
        return self._extractor.network_with(self._extractor.checked_file())

    def compare(self, network: nn.Module, a: Tensor, b: Tensor) -> Tensor:
        pairs = zip(self._stages(network, a), self._stages(network, b), strict=True)
        each = [(unit_vectors(f) - unit_vectors(g)).square().sum(1).mean((1, 2)) for f, g in pairs]
        return torch.stack(each).mean(0)

    def _stages(self, network: Any, images: Tensor) -> list[Tensor]:  # noqa: ANN401 -- timm's
        x = network.bn1(network.conv_stem(images.contiguous(memory_format=torch.channels_last)))
        found = []
        for stage, block in enumerate(network.blocks[: self.layers[-1] + 1]):
            x = block(x)
            if stage in self.layers:
                found.append(x)
        return found
