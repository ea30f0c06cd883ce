import pytest
import torch

from flowexp.metrics import Extractor, RawValues


def test_points_pass_and_images_are_centred():
    extractor = RawValues()
    assert isinstance(extractor, Extractor)
    points = torch.tensor([[1.0, -2.0]])
    torch.testing.assert_close(extractor(points), points)
    image = torch.tensor([0, 255, 51, 204], dtype=torch.uint8).reshape(1, 1, 2, 2)
    torch.testing.assert_close(extractor(image), torch.tensor([[-1.0, 1.0, -0.6, 0.6]]))


@pytest.mark.parametrize("bad", [torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, dtype=torch.int64)])
def test_other_samples_are_refused(bad):
    with pytest.raises(ValueError, match="samples must be"):
        RawValues()(bad)
