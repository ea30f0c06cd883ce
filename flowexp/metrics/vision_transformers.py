"""Features of DINOv2 and CLIP, vision transformers from weights files that the user provides."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.metrics.pretrained import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    Channels,
    PretrainedExtractor,
    normalized,
)
from flowexp.metrics.resize import torch_bicubic_antialias
from flowexp.metrics.weight_files import fill, read_state


class VisionTransformer(PretrainedExtractor):
    """A frozen vision transformer from a weights file.

    Attributes:
        architecture: timm's name of the network.
        options: What is passed to timm beside it.
        side: Side of the network's input.
        mean: Mean of each channel, for values in [0, 1].
        deviation: Standard deviation of each channel.
    """

    cpu_chunk = 4
    architecture: ClassVar[str]
    options: ClassVar[Mapping[str, Any]]
    side: ClassVar[int]
    mean: ClassVar[Channels]
    deviation: ClassVar[Channels]

    @abstractmethod
    def fitted(self, state: dict[str, Tensor], *, network: Any) -> dict[str, Tensor]:  # noqa: ANN401 -- timm's
        """The file's tensors under the names and in the shapes of the network's."""

    def network_with(self, file: Path) -> nn.Module:
        import timm

        # without storage, since random initial values of 300 M weights take seconds
        with torch.device("meta"):
            network: nn.Module = timm.create_model(
                self.architecture, pretrained=False, img_size=self.side, **self.options
            )
        state = self.fitted(read_state(file, key=self.key), network=network)
        fill(network, state, file=file, key=self.key)
        return network


class DINOv2(VisionTransformer):
    """The 1024-d class token of DINOv2 ViT-L/14 (after the last norm), behind FD-DINOv2.

    Images are brought to 224 by the bicubic filter of Pillow, rounded to levels as there. The
    position embeddings, made for 518 x 518, are interpolated as in the authors' code: bicubic, not
    low-passed, with their offset of 0.1 patches.

    Args:
        weights: The authors' ``dinov2_vitl14_pretrain.pth``, or timm's
            ``vit_large_patch14_dinov2.lvd142m`` (same layout, without the mask token).

    Source: Oquab et al. 2023, arXiv 2304.07193; Stein et al. 2023, arXiv 2306.04675.
    """

    name = "DINOv2 ViT-L/14, 224px"
    dim: int = 1024
    resize = "bicubic antialias to 224, rounded"
    architecture = "vit_large_patch14_dinov2"
    options: ClassVar[Mapping[str, Any]] = {"num_classes": 0}
    side = 224
    file_name = "dinov2_vitl14_pretrain.pth"
    key = "metric.fd_dinov2.extractor.weights"
    remedy = f"Get {file_name} from the DINOv2 repository and name it with this key."
    mean = IMAGENET_MEAN
    deviation = IMAGENET_DEVIATION

    def features(self, images: Tensor) -> Tensor:
        resized = torch_bicubic_antialias(images.to(self.device), (self.side, self.side))
        network: Any = self.network
        inputs = normalized(resized.round(), mean=self.mean, deviation=self.deviation)
        tokens: Tensor = network.forward_features(inputs)
        return tokens[:, 0]

    def fitted(self, state: dict[str, Tensor], *, network: Any) -> dict[str, Tensor]:  # noqa: ANN401 -- timm's
        kept = {name: value for name, value in state.items() if name != "mask_token"}
        wanted = network.state_dict()["pos_embed"].shape[1] - 1
        if "pos_embed" in kept and kept["pos_embed"].shape[1] - 1 != wanted:
            kept["pos_embed"] = _resampled(kept["pos_embed"].float(), tokens=wanted)
        return kept


class CLIPImage(VisionTransformer):
    """The 768-d image embedding of CLIP ViT-L/14 at 336, unit long, behind CMMD.

    Images are brought to 336 by the bicubic filter with a = -1/2, low-passed when shrinking and not
    held in range, as JAX's resize does, which the authors of CMMD use.

    Args:
        weights: OpenAI's weights as a plain state dict, in the layout of OpenAI and open_clip (keys
            ``visual.conv1.weight`` ...) or of timm's ``vit_large_patch14_clip_336.openai``.

    Source: Radford et al. 2021, arXiv 2103.00020; Jayasumana et al. 2024, arXiv 2401.09603.
    """

    name = "CLIP ViT-L/14@336"
    dim: int = 768
    resize = "bicubic antialias to 336, not clipped"
    # these weights were trained with x sigmoid(1.702 x) in place of GELU
    architecture = "vit_large_patch14_clip_quickgelu_336"
    options: ClassVar[Mapping[str, Any]] = {"num_classes": 768}
    side = 336
    key = "metric.clip_mmd.extractor.weights"
    remedy = (
        "Get open_clip's or timm's copy of OpenAI's ViT-L/14@336 (.safetensors) and name it with "
        "this key."
    )
    mean = (0.48145466, 0.4578275, 0.40821073)
    deviation = (0.26862954, 0.26130258, 0.27577711)

    def features(self, images: Tensor) -> Tensor:
        levels, size = images.to(self.device).float(), (self.side, self.side)
        resized = F.interpolate(levels, size=size, mode="bicubic", antialias=True)
        inputs = normalized(resized, mean=self.mean, deviation=self.deviation)
        embedding: Tensor = self.network(inputs)
        return F.normalize(embedding)

    def fitted(self, state: dict[str, Tensor], *, network: Any) -> dict[str, Tensor]:  # noqa: ANN401 -- timm's
        """OpenAI's names brought to timm's; a projection without bias gets a bias of 0."""
        from timm.models.vision_transformer import checkpoint_filter_fn

        mapped: dict[str, Tensor] = checkpoint_filter_fn(state, network)
        return mapped


def _resampled(embeddings: Tensor, *, tokens: int) -> Tensor:
    """Position embeddings of another grid, (1, 1 + tokens, d); the class token's stays."""
    old, new = round((embeddings.shape[1] - 1) ** 0.5), round(tokens**0.5)
    grid = embeddings[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    factor = (new + 0.1) / old
    grid = F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
    return torch.cat([embeddings[:, :1], grid.permute(0, 2, 3, 1).reshape(1, tokens, -1)], 1)
