import pytest
import torch
import torchvision

from flowexp.errors import UsageError
from flowexp.metrics import VGG16, Extractor, PrecisionRecall


def save_small(file):
    """torchvision's layout with one number per output, which is all that has to be stored."""
    with torch.device("meta"):
        shapes = {
            k: v.shape for k, v in torchvision.models.vgg16(weights=None).state_dict().items()
        }
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        single = torch.rand(shape[0], *[1] * (len(shape) - 1), generator=generator) - 0.3
        state[name] = (single / max(1, shape[1:].numel()) * 4).expand(shape)
    torch.save(state, file)
    return file


@pytest.mark.slow
def test_features_equal_torch_fidelity(tmp_path):
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

    file = save_small(tmp_path / "vgg16-397923af.pth")
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)
    extractor = VGG16(weights=tmp_path)
    assert isinstance(extractor, Extractor)
    ours = extractor(images)
    theirs = FeatureExtractorVGG16("x", ["fc2_relu"], feature_extractor_weights_path=str(file))
    wanted = theirs(images)[0]
    assert ours.shape == (2, 4096)
    assert float(wanted.norm()) > 0
    assert float((ours - wanted).norm() / wanted.norm()) < 1e-5


def test_missing_weights_are_named(tmp_path):
    metric = PrecisionRecall(VGG16(weights=tmp_path), name="precision_recall")
    with pytest.raises(UsageError, match=r"vgg16-397923af\.pth") as caught:
        metric.check()
    assert caught.value.key == "metric.precision_recall.extractor.weights"
    assert "precision_recall_efflite0" in caught.value.remedy
