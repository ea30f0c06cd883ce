"""Features of the TensorFlow 2015-12-05 Inception: pool3 (FID's), logits (IS's), spatial (sFID's).

The network is torch-fidelity's; its weights are a file that is never downloaded from here.

Source: Szegedy et al. 2015, arXiv 1512.00567; FID: Heusel et al. 2017, arXiv 1706.08500; sFID:
Nash et al. 2021, arXiv 2103.03841.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowexp.errors import UsageError
from flowexp.files import file_sha256
from flowexp.metrics.pretrained import PretrainedExtractor, as_rgb
from flowexp.metrics.protocol import (
    INCEPTION_LOGITS,
    INCEPTION_NAME,
    INCEPTION_RESIZE,
    INCEPTION_SHA256_PREFIX,
    INCEPTION_SPATIAL,
)

_SPATIAL_CHANNELS = 7
_LOG = logging.getLogger(__name__)


class InceptionV3(PretrainedExtractor):
    """The 2048 pool3 features behind FID: TF1 bilinear to 299, (v - 128) / 128."""

    name = INCEPTION_NAME
    dim = 2048
    resize = INCEPTION_RESIZE
    file_name = "weights-inception-2015-12-05-6726825d.pth"
    key = "metric.fid.extractor.weights"
    remedy = (
        "Get the file from torch-fidelity's release v0.2.0 and put it there or name it with this "
        "key; metric=fd_efflite0 works without it."
    )
    cpu_chunk = 16
    layer = "2048"

    def features(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(as_rgb(images.to(self.device)))[0]
        return features

    def network_with(self, file: Path) -> nn.Module:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # torch-fidelity unpickles without restriction: the restricted loader has to accept it first
        torch.load(file, map_location="cpu", weights_only=True)
        network: nn.Module = FeatureExtractorInceptionV3(
            "inception-v3-compat", [self.layer], feature_extractor_weights_path=str(file)
        )
        _LOG.info("Inception features from %s", file)
        return network.to(memory_format=torch.channels_last)

    def checked_file(self) -> Path:
        file = super().checked_file()
        sha256 = file_sha256(file)
        if not sha256.startswith(INCEPTION_SHA256_PREFIX):
            raise UsageError(
                f"{file} is not the official Inception file (sha256 starts with {sha256[:8]}, "
                f"expected {INCEPTION_SHA256_PREFIX}).",
                key=self.key,
                remedy="A distance on other weights is not FID: replace the file.",
            )
        return file


class InceptionLogits(InceptionV3):
    """The 1008 logits without the bias of the last layer, behind the Inception score."""

    name = INCEPTION_LOGITS
    dim = 1008
    layer = "logits_unbiased"


class InceptionSpatial(InceptionV3):
    """The first 7 channels of ``mixed_6/conv``, 17 x 17 x 7 = 2023 numbers, behind sFID.

    The layer is the first 1x1 branch of the sixth mixed block, with its normalisation and ReLU;
    numbers are in the order row, column, channel, as in the reference's statistics files.

    Source: Nash et al. 2021, arXiv 2103.03841; layer and channels as in guided-diffusion's
    evaluations.
    """

    name = INCEPTION_SPATIAL
    dim = 17 * 17 * _SPATIAL_CHANNELS
    layer = "768"

    def features(self, images: Tensor) -> Tensor:
        network: Any = self.network
        seen: list[Tensor] = []
        hook = network.Mixed_6d.branch1x1.register_forward_hook(lambda *call: seen.append(call[2]))
        try:
            network(as_rgb(images.to(self.device)))
        finally:
            hook.remove()
        return seen[0][:, :_SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
