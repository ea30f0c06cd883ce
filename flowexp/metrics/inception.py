"""Pool3 features of the TensorFlow 2015-12-05 Inception, the ones FID is defined by.

The network is torch-fidelity's; its weights are a file of their own that is never downloaded from
here.

Source: Szegedy et al. 2015, arXiv 1512.00567; FID: Heusel et al. 2017, arXiv 1706.08500.
"""

import logging
import os
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from flowexp.errors import UsageError
from flowexp.metrics.pretrained import (
    as_rgb,
    checked_images,
    float32_inference,
    in_chunks,
    sha256_of,
)
from flowexp.metrics.protocol import (
    INCEPTION_NAME,
    INCEPTION_RESIZE,
    INCEPTION_SHA256_PREFIX,
    UINT8,
)

_FILE = "weights-inception-2015-12-05-6726825d.pth"
_CPU_CHUNK = 16
_KEY = "metric.fid.extractor.weights"
_LOG = logging.getLogger(__name__)


def inception_candidates(weights: Path | str | None = None) -> list[Path]:
    """Where the Inception weights are looked for, in order.

    Args:
        weights: The file itself, or a directory that holds it; when given, nothing else is tried.

    Returns:
        ``weights``, else ``$FLOWEXP_WEIGHTS/<file>``, ``$TORCH_HOME/hub/checkpoints/<file>`` and
        ``~/.cache/torch/hub/checkpoints/<file>``.
    """
    if weights is not None:
        given = Path(weights).expanduser()
        return [given / _FILE if given.is_dir() else given]
    folders = []
    if own := os.environ.get("FLOWEXP_WEIGHTS"):
        folders.append(Path(own))
    if torch_home := os.environ.get("TORCH_HOME"):
        folders.append(Path(torch_home) / "hub" / "checkpoints")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folders.append(cache / "torch" / "hub" / "checkpoints")
    return [folder.expanduser() / _FILE for folder in folders]


class InceptionV3:
    """The 2048 pool3 features behind FID: TF1 bilinear to 299, (v - 128) / 128.

    Args:
        weights: Local file ``weights-inception-2015-12-05-6726825d.pth`` or its directory; None
            looks in ``$FLOWEXP_WEIGHTS`` and torch's hub folders.
    """

    name = INCEPTION_NAME
    dim = 2048
    resize = INCEPTION_RESIZE
    quantization = UINT8

    def __init__(self, *, weights: Path | str | None = None) -> None:
        self.weights = weights
        self._network: nn.Module | None = None
        self._device = torch.device("cpu")
        self._sha256: str | None = None

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file found."""
        if self._sha256 is None:
            self.check()
        return self._sha256 or ""

    @property
    def network(self) -> nn.Module:
        """The loaded network, in eval mode."""
        if self._network is None:
            self._network = _network_with(self._checked_file()).to(self._device)
        return self._network

    def check(self) -> None:
        """Raise ``UsageError`` when the weights file is missing or another file."""
        self._checked_file()

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
            (B, 2048) float32 on the network's device.
        """
        checked_images(images)
        # parameters made in inference mode could not be moved afterwards
        self.load(device=self._device)
        with float32_inference(self._device):
            return in_chunks(self._features, images, size=_CPU_CHUNK, device=self._device)

    def _features(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(as_rgb(images.to(self._device)))[0]
        return features

    def _checked_file(self) -> Path:
        candidates = inception_candidates(self.weights)
        file = next((c for c in candidates if c.is_file()), None)
        if file is None:
            looked = ", ".join(str(c) for c in candidates)
            raise UsageError(
                f"FID needs the Inception weights {_FILE}, which were not found (looked for "
                f"{looked}).",
                key=_KEY,
                remedy="Get the file from torch-fidelity's release v0.2.0 and put it there or name "
                "it with this key; metric=fd_efflite0 works without it.",
            )
        sha256 = sha256_of(file)
        if not sha256.startswith(INCEPTION_SHA256_PREFIX):
            raise UsageError(
                f"{file} is not the official Inception file (sha256 starts with {sha256[:8]}, "
                f"expected {INCEPTION_SHA256_PREFIX}).",
                key=_KEY,
                remedy="A distance on other weights is not FID: replace the file.",
            )
        self._sha256 = sha256
        return file


def _network_with(file: Path) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # torch-fidelity unpickles without restriction, so the restricted loader has to accept it first
    torch.load(file, map_location="cpu", weights_only=True)
    network: nn.Module = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file)
    )
    _LOG.info("Inception features from %s", file)
    return network.to(memory_format=torch.channels_last)
