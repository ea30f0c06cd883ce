import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from flowexp.errors import UsageError
from flowexp.metrics import (
    CleanInception,
    Extractor,
    FrechetDistance,
    InceptionLogits,
    InceptionSpatial,
    InceptionV3,
    Protocol,
    PytorchInception,
)
from flowexp.metrics.weight_files import candidates

FILE = "weights-inception-2015-12-05-6726825d.pth"
OFFICIAL = "6726825d" + "0" * 56


def as_official(monkeypatch):
    """Take any file for the official one."""
    for module in ("inception", "pretrained"):
        monkeypatch.setattr(f"flowexp.metrics.{module}.file_sha256", lambda file: OFFICIAL)


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A computer without the weights, on which a download is an error."""
    monkeypatch.delenv("FLOWEXP_WEIGHTS", raising=False)
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "torch.hub.load_state_dict_from_url", lambda *a, **k: pytest.fail("tried to download")
    )
    return tmp_path


def place(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_bytes(b"x")
    return folder / FILE


def test_places_in_order(monkeypatch, nowhere):
    monkeypatch.setenv("FLOWEXP_WEIGHTS", str(nowhere / "own"))
    monkeypatch.setenv("TORCH_HOME", str(nowhere / "torch"))
    assert candidates(FILE) == [
        nowhere / "own" / FILE,
        nowhere / "torch" / "hub" / "checkpoints" / FILE,
        nowhere / "cache" / "torch" / "hub" / "checkpoints" / FILE,
    ]
    assert candidates(FILE, given=nowhere / "a.pth") == [nowhere / "a.pth"]
    assert candidates(FILE, given=nowhere) == [nowhere / FILE]


def test_the_home_cache_is_the_last_place(monkeypatch, nowhere):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(nowhere))
    assert candidates(FILE) == [nowhere / ".cache" / "torch" / "hub" / "checkpoints" / FILE]


@pytest.mark.parametrize("use", [InceptionV3.check, InceptionV3.load, lambda e: e.weights_sha256])
def test_missing_weights_name_file_places_and_way_out(nowhere, use):
    with pytest.raises(UsageError) as caught:
        use(InceptionV3())
    message = str(caught.value)
    assert caught.value.key == "metric.fid.extractor.weights"
    assert FILE in message
    assert str(nowhere / "cache") in message
    assert "metric=fd_efflite0" in message


@pytest.mark.parametrize("folder", ["own", "torch/hub/checkpoints", "cache/torch/hub/checkpoints"])
def test_each_place_is_found_and_another_file_refused(monkeypatch, nowhere, folder):
    monkeypatch.setenv("FLOWEXP_WEIGHTS", str(nowhere / "own"))
    monkeypatch.setenv("TORCH_HOME", str(nowhere / "torch"))
    file = place(nowhere / folder)
    with pytest.raises(UsageError, match="not the official Inception file") as caught:
        InceptionV3().check()
    assert str(file) in str(caught.value)
    as_official(monkeypatch)
    extractor = InceptionV3()
    extractor.check()
    assert extractor.weights_sha256 == OFFICIAL
    assert isinstance(extractor, Extractor)


class Evil:
    def __reduce__(self):
        return pytest.fail, ("code in the weights file was run",)


def test_a_weights_file_with_code_in_it_is_not_run(monkeypatch, nowhere):
    as_official(monkeypatch)
    torch.save({"x": Evil()}, nowhere / FILE)
    with pytest.raises(pickle.UnpicklingError):
        InceptionV3(weights=nowhere).load()


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory):
    """torch-fidelity's network with random weights, all outputs, and the file that holds them."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    place = tmp_path_factory.mktemp("inception")
    torch.save({}, place / "blank.pth")
    layers = ["2048", "logits_unbiased"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        network = FeatureExtractorInceptionV3(
            "x", layers, feature_extractor_weights_path=str(place / "blank.pth")
        )
    torch.save(network.state_dict(), place / FILE)
    return network, place


@pytest.mark.slow
def test_features_equal_torch_fidelity_with_random_weights(monkeypatch, random_inception):
    network, place = random_inception
    as_official(monkeypatch)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (3, 1, 28, 28), generator=generator, dtype=torch.uint8)
    seen = []
    network.Mixed_6c.register_forward_hook(lambda *call: seen.append(call[2]))
    pool3, logits = network(images.repeat(1, 3, 1, 1))
    block = network.Mixed_6d.branch1x1
    spatial = torch.relu(block.bn(block.conv(seen[0])))
    # numbers are in the order row, column, channel
    wanted = {
        InceptionV3: pool3,
        InceptionLogits: logits,
        InceptionSpatial: spatial[:, :7].permute(0, 2, 3, 1).reshape(3, 2023),
    }
    for kind, features in wanted.items():
        ours = kind(weights=place)(images)
        assert ours.shape == (3, kind.dim)
        assert float((ours - features).norm() / features.norm()) < 1e-5

    # an image of Inception's size is not resized: only the range of the inputs differs
    large = torch.randint(0, 256, (2, 3, 299, 299), generator=generator, dtype=torch.uint8)
    plain = InceptionV3(weights=place)(large)
    torch.testing.assert_close(CleanInception(weights=place)(large), plain, rtol=0, atol=0)
    assert not torch.allclose(PytorchInception(weights=place)(large), plain, rtol=1e-4, atol=0)
    assert not torch.allclose(CleanInception(weights=place)(images), pool3, rtol=1e-4, atol=0)


def test_what_the_network_sees_after_other_resizes():
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (2, 3, 32, 40), generator=generator, dtype=torch.uint8)
    planes = [
        Image.fromarray(plane.float().numpy()).resize((299, 299), Image.Resampling.BICUBIC)
        for plane in images.flatten(0, 1)
    ]
    by_pillow = np.stack([np.asarray(plane) for plane in planes]).clip(0, 255)
    seen = CleanInception().inputs(images)
    np.testing.assert_array_equal(seen.reshape(6, 299, 299), (by_pillow - 128) / 128)
    assert np.abs(by_pillow - by_pillow.round()).max() > 0.1  # not rounded to levels again
    seen = PytorchInception().inputs(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8))
    torch.testing.assert_close(seen, torch.ones(1, 3, 299, 299))


def test_other_resizes_have_names_of_their_own():
    with pytest.raises(ValueError, match="qualify it"):
        FrechetDistance(CleanInception(), name="fid")
    names = {InceptionV3: "FID", CleanInception: "clean-FID", PytorchInception: "pytorch-FID"}
    protocols = [
        Protocol(
            metric="FD",
            extractor=kind.name,
            weights_sha256=OFFICIAL,
            resize=kind.resize,
            quantization=kind.quantization,
            reference="cifar10",
            reference_fingerprint="abc",
            reference_split="train",
            n_ref=50_000,
            n_gen=50_000,
        )
        for kind in names
    ]
    for protocol, name in zip(protocols, names.values(), strict=True):
        assert protocol.published_name == name
        assert protocol.title == f"{name} 50k on cifar10"
        assert protocol.is_fid is (name == "FID")
    assert "resize" in protocols[0].differences(protocols[1])[0]
