"""The 4096 features of VGG16's second fully connected layer, precision and recall's usual ones.

Source: Simonyan and Zisserman 2015, arXiv 1409.1556; size, resize and normalisation follow
torch-fidelity.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from flowexp.files import file_sha256
from flowexp.metrics.pretrained import PretrainedExtractor, as_rgb
from flowexp.metrics.protocol import UINT8
from flowexp.metrics.resize import tf1_bilinear
from flowexp.metrics.weight_files import fill, found_file, read_state

_FILE = "vgg16-397923af.pth"
_KEY = "metric.precision_recall.extractor.weights"
_SIDE = 224
_AFTER_FC2 = 5


class VGG16(PretrainedExtractor):
    """ReLU outputs of the layer before the classes: TF1 bilinear to 224, ImageNet's normalisation.

    Args:
        weights: torchvision's state dict ``vgg16-397923af.pth`` or its directory; None looks in
            ``$FLOWEXP_WEIGHTS`` and torch's hub folders.
    """

    name = "VGG16 fc2"
    dim = 4096
    resize = f"TF1 bilinear to {_SIDE}"
    quantization = UINT8
    cpu_chunk = 8

    def __init__(self, *, weights: Path | str | None = None) -> None:
        super().__init__()
        self.weights = weights

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file found."""
        return file_sha256(self.checked_file())

    def checked_file(self) -> Path:
        """The weights file."""
        return found_file(
            _FILE,
            given=self.weights,
            what="VGG16",
            key=_KEY,
            remedy=f"Get {_FILE} from torchvision's download site and put it there, or use "
            "metric=precision_recall_efflite0, which needs no file.",
        )

    def features(self, images: Tensor) -> Tensor:
        """Features of a few images."""
        pixels = as_rgb(tf1_bilinear(images.to(self.device), (_SIDE, _SIDE))) / 255
        mean = pixels.new_tensor([0.485, 0.456, 0.406])[:, None, None]
        deviation = pixels.new_tensor([0.229, 0.224, 0.225])[:, None, None]
        features: Tensor = self.network((pixels - mean) / deviation)
        return features

    def network_with(self, file: Path) -> nn.Module:
        """The network with these weights, up to the layer's ReLU."""
        import torchvision

        with torch.device("meta"):
            network: nn.Module = torchvision.models.vgg16(weights=None)
        fill(network, read_state(file, key=_KEY), file=file, key=_KEY)
        network.classifier = network.get_submodule("classifier")[:_AFTER_FC2]  # type: ignore[index]  # a Sequential
        return network
