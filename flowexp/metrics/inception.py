"""Features of the TensorFlow 2015-12-05 Inception: pool3 (FID's), logits (IS's), spatial (sFID's).

The network is torch-fidelity's; its weights are a file that is never downloaded from here.

Source: Szegedy et al. 2015, arXiv 1512.00567; FID: Heusel et al. 2017, arXiv 1706.08500; sFID:
Nash et al. 2021, arXiv 2103.03841.
"""

import logging
from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowexp.errors import UsageError
from flowexp.files import file_sha256
from flowexp.metrics.pretrained import PretrainedExtractor, as_rgb
from flowexp.metrics.protocol import (
    CLEAN_RESIZE,
    INCEPTION_LOGITS,
    INCEPTION_NAME,
    INCEPTION_RESIZE,
    INCEPTION_SHA256_PREFIX,
    INCEPTION_SPATIAL,
    TORCH_RESIZE,
)
from flowexp.metrics.resize import pil_bicubic, torch_bilinear

_SPATIAL_CHANNELS = 7
_SIZE = (299, 299)
_LOG = logging.getLogger(__name__)


class InceptionV3(PretrainedExtractor):
    """The 2048 pool3 features behind FID: TF1 bilinear to 299, (v - 128) / 128.

    So do StyleGAN's and EDM's code, ADM's evaluator, torch-fidelity, and clean-fid with
    ``mode="legacy_tensorflow"``.
    """

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


class _ResizedInception(InceptionV3):
    """The pool3 features of images that are brought to the network in another way than FID's."""

    @abstractmethod
    def inputs(self, images: Tensor) -> Tensor:
        """What the first convolution sees, (b, 3, 299, 299) float32, of images (b, 3, H, W)."""

    def features(self, images: Tensor) -> Tensor:
        inputs = self.inputs(as_rgb(images.to(self.device)))
        # the network takes 8-bit images only and resizes them itself: its first layer is given ours
        network: Any = self.network
        hook = network.Conv2d_1a_3x3.register_forward_pre_hook(lambda *call: (inputs,))
        try:
            features: Tensor = network(images.new_zeros(len(images), 3, 1, 1).to(self.device))[0]
        finally:
            hook.remove()
        return features


class CleanInception(_ResizedInception):
    """The pool3 features behind clean-FID: Pillow's bicubic to 299 in float32, (v - 128) / 128.

    A low-passed resize of images larger than 299, and a smoother one of smaller images.

    Source: Parmar, Zhang, Zhu 2022, arXiv 2104.11222; clean-fid 0.1.35, ``mode="clean"``.
    """

    resize = CLEAN_RESIZE

    def inputs(self, images: Tensor) -> Tensor:
        return (pil_bicubic(images, _SIZE) - 128.0) / 128.0


class PytorchInception(_ResizedInception):
    """The pool3 features behind pytorch-fid: half-pixel-centred bilinear to 299, v / 127.5 - 1.

    Source: Seitzer, pytorch-fid; clean-fid 0.1.35, ``mode="legacy_pytorch"``.
    """

    resize = TORCH_RESIZE

    def inputs(self, images: Tensor) -> Tensor:
        return torch_bilinear(images, _SIZE) / 127.5 - 1.0


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
