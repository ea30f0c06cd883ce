"""The 4096 features of VGG16's second fully connected layer, precision and recall's usual ones.

Source: Simonyan and Zisserman 2015, arXiv 1409.1556; size, resize and normalisation follow
torch-fidelity.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from flowexp.metrics.pretrained import PretrainedExtractor, normalized
from flowexp.metrics.resize import tf1_bilinear
from flowexp.metrics.weight_files import fill, read_state

_SIDE = 224
_AFTER_FC2 = 5


class VGG16(PretrainedExtractor):
    """ReLU outputs of the layer before the classes: TF1 bilinear to 224, ImageNet's normalisation.

    The weights are torchvision's state dict ``vgg16-397923af.pth``.
    """

    name = "VGG16 fc2"
    dim = 4096
    resize = f"TF1 bilinear to {_SIDE}"
    file_name = "vgg16-397923af.pth"
    key = "metric.precision_recall.extractor.weights"
    remedy = (
        f"Get {file_name} from torchvision's download site and put it there, or use "
        "metric=precision_recall_efflite0, which needs no file."
    )
    cpu_chunk = 8

    def features(self, images: Tensor) -> Tensor:
        resized = tf1_bilinear(images.to(self.device), (_SIDE, _SIDE))
        features: Tensor = self.network(normalized(resized))
        return features

    def network_with(self, file: Path) -> nn.Module:
        """The network with these weights, up to the layer's ReLU."""
        import torchvision

        with torch.device("meta"):
            network: nn.Module = torchvision.models.vgg16(weights=None)
        fill(network, read_state(file, key=self.key), file=file, key=self.key)
        network.classifier = network.get_submodule("classifier")[:_AFTER_FC2]  # type: ignore[index]  # a Sequential
        return network
