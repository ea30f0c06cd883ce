import hashlib
import importlib.util
from pathlib import Path

import pytest
import torch
import torchvision
from torchmetrics.functional.image import lpips as theirs

from flowexp.errors import UsageError
from flowexp.metrics import LPIPS
from tests.metrics.random_weights import save_backbone

FILES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("weights")
    for net, name in FILES.items():
        save_backbone(place / name, net)
    return place


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A computer without weights, on which a download is an error."""
    monkeypatch.delenv("FLOWEXP_WEIGHTS", raising=False)
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "torch.hub.load_state_dict_from_url", lambda *a, **k: pytest.fail("tried to download")
    )
    return tmp_path


def images(n=3, *, side=32, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(n, channels, side, side, generator=generator) - 1


def torchmetrics_network(folder, net):
    """torchmetrics' own module with the same two files."""
    network = theirs._LPIPS(pretrained=True, net=net, pnet_rand=True)
    stored = torch.load(folder / FILES[net], weights_only=True)
    features = {k.split(".", 1)[1]: v for k, v in stored.items() if k.startswith("features.")}
    for name, parameter in network.net.named_parameters():
        parameter.data = features[name.split(".", 1)[1]]
    return network


@pytest.mark.parametrize("net", ["vgg", "alex"])
@pytest.mark.parametrize("side", [32, 48])
def test_equals_torchmetrics_with_the_same_files(folder, net, side):
    a, b = images(side=side), images(side=side, seed=1)
    ours = LPIPS(weights=folder, net=net)(a, b)
    wanted = theirs._lpips_update(a, b, torchmetrics_network(folder, net), normalize=False)
    assert ours.shape == (3,)
    assert float(ours.min()) > 1e-3
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-7)


def test_options_of_rectified_flow_plus_plus(folder):
    """Average pooling, bilinear (here to 80), v / 2 + 1 / 2, ImageNet's mean."""
    a, b = images(2), images(2, seed=1)
    ours = LPIPS(weights=folder, replace_pooling=True, resize=80)(a, b)
    stored = torch.load(folder / FILES["vgg"], weights_only=True)
    with torch.device("meta"):
        layers = torchvision.models.vgg16(weights=None).features
    layers.load_state_dict(
        {k[9:]: v for k, v in stored.items() if k.startswith("features.")}, assign=True
    )
    root = Path(importlib.util.find_spec("torchmetrics").origin).parent
    heads = torch.load(
        root / "functional/image/lpips_models/vgg.pth", weights_only=True, map_location="cpu"
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    total = torch.zeros(2)
    maps = []
    for image in (a, b):
        x = torch.nn.functional.interpolate(image, size=(80, 80), mode="bilinear")
        x = (x / 2 + 0.5 - mean[:, None, None]) / std[:, None, None]
        kept = []
        for i, layer in enumerate(layers):
            is_pooling = isinstance(layer, torch.nn.MaxPool2d)
            x = torch.nn.functional.avg_pool2d(x, 2) if is_pooling else layer(x)
            if i in (3, 8, 15, 22, 29):
                kept.append(x / (1e-8 + x.square().sum(1, keepdim=True)).sqrt())
        maps.append(kept)
    for i, (f, g) in enumerate(zip(*maps, strict=True)):
        total += ((f - g).square() * heads[f"lin{i}.model.1.weight"]).sum(1).mean((1, 2))
    torch.testing.assert_close(ours, total.detach(), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(ours, LPIPS(weights=folder, resize=80)(a, b), rtol=1e-3)


def test_grey_images_are_repeated(folder):
    grey, other = images(channels=1), images(channels=1, seed=1)
    distance = LPIPS(weights=folder, net="alex")
    colour = distance(grey.repeat(1, 3, 1, 1), other.repeat(1, 3, 1, 1))
    torch.testing.assert_close(distance(grey, other), colour, rtol=1e-5, atol=1e-7)


def test_name_and_hashes_say_which_files(folder, tmp_path):
    distance = LPIPS(weights=folder, net="alex", replace_pooling=True)
    file = folder / FILES["alex"]
    backbone = hashlib.sha256(file.read_bytes()).hexdigest()
    root = Path(importlib.util.find_spec("torchmetrics").origin).parent
    heads = hashlib.sha256((root / "functional/image/lpips_models/alex.pth").read_bytes())
    assert distance.weights_sha256 == f"{backbone}+{heads.hexdigest()}"
    assert distance.metric == "LPIPS (AlexNet)"
    assert distance.features_name == "AlexNet, average pooling, other weights"


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_a_missing_file_is_named_with_its_place(nowhere, net):
    with pytest.raises(UsageError) as caught:
        LPIPS(net=net).check()
    assert FILES[net] in str(caught.value)
    assert str(nowhere / "cache") in str(caught.value)
    assert "torchvision" in caught.value.remedy
    with pytest.raises(UsageError, match=r"gone\.pth"):
        LPIPS(weights=nowhere / "gone.pth", net=net)(images(), images())


def test_files_of_another_network_are_refused(folder, tmp_path):
    with pytest.raises(UsageError, match=r"does not fit.*0\.weight"):
        LPIPS(weights=folder / FILES["alex"], net="vgg")(images(), images())
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UsageError, match="plain state dict"):
        LPIPS(weights=tmp_path / "text.pth")(images(), images())
    torch.save({"lin0.model.1.weight": torch.ones(1, 64, 1, 1)}, tmp_path / "heads.pth")
    with pytest.raises(UsageError, match=r"no lin1\.model\.1\.weight") as caught:
        LPIPS(weights=folder, heads=tmp_path / "heads.pth")(images(), images())
    assert caught.value.key == "heads"


def test_impossible_settings(folder):
    with pytest.raises(ValueError, match="net must be one of"):
        LPIPS(net="squeeze")
    with pytest.raises(ValueError, match="resize"):
        LPIPS(net="vgg", resize=8)
    with pytest.raises(ValueError, match="at least 31 pixels"):
        LPIPS(weights=folder, net="alex")(images(side=28), images(side=28))
