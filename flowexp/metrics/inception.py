"""Pool3 features of the TensorFlow 2015-12-05 Inception, the ones FID is defined by.

The network is torch-fidelity's; its weights are a file of their own that is never downloaded from
here.

Source: Szegedy et al. 2015, arXiv 1512.00567; FID: Heusel et al. 2017, arXiv 1706.08500.
"""

import logging
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from flowexp.errors import UsageError
from flowexp.metrics.pretrained import PretrainedExtractor, as_rgb, sha256_of
from flowexp.metrics.protocol import (
    INCEPTION_NAME,
    INCEPTION_RESIZE,
    INCEPTION_SHA256_PREFIX,
    UINT8,
)

_FILE = "weights-inception-2015-12-05-6726825d.pth"
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


class InceptionV3(PretrainedExtractor):
    """The 2048 pool3 features behind FID: TF1 bilinear to 299, (v - 128) / 128.

    Args:
        weights: Local file ``weights-inception-2015-12-05-6726825d.pth`` or its directory; None
            looks in ``$FLOWEXP_WEIGHTS`` and torch's hub folders.
    """

    name = INCEPTION_NAME
    dim = 2048
    resize = INCEPTION_RESIZE
    quantization = UINT8
    cpu_chunk = 16

    def __init__(self, *, weights: Path | str | None = None) -> None:
        super().__init__()
        self.weights = weights
        self._sha256: str | None = None

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file found."""
        if self._sha256 is None:
            self.check()
        return self._sha256 or ""

    def features(self, images: Tensor) -> Tensor:
        """Features of a few images."""
        features: Tensor = self.network(as_rgb(images.to(self.device)))[0]
        return features

    def network_with(self, file: Path) -> nn.Module:
        """The network with these weights."""
        return _network_with(file)

    def checked_file(self) -> Path:
        """The weights file, after a check of its hash."""
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
