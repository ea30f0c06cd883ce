from typing import ClassVar

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from flowexp.errors import UsageError
from flowexp.metrics import CLIPImage, DINOv2, Extractor, FrechetDistance, GaussianMMD

SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 2}
LEVELS = torch.randint(
    0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
)


class SmallDINOv2(DINOv2):
    """The same code with a small network."""

    options: ClassVar = {**DINOv2.options, **SMALL}


class SmallCLIP(CLIPImage):
    """The same code with a small network."""

    options: ClassVar = {**CLIPImage.options, **SMALL}


def network_of(extractor, side):
    torch.manual_seed(0)
    network = timm.create_model(extractor.architecture, img_size=side, **extractor.options).eval()
    for value in network.state_dict().values():
        value.add_(0.1 * torch.randn_like(value))
    return network


def normalized(pixels, extractor):
    mean = torch.tensor(extractor.mean)[:, None, None]
    return (pixels / 255 - mean) / torch.tensor(extractor.deviation)[:, None, None]


def resized_by_pillow(side):
    pictures = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in LEVELS]
    arrays = [np.array(p.resize((side, side), Image.Resampling.BICUBIC)) for p in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float()


def test_dinov2_is_the_class_token_of_pillows_picture(tmp_path):
    network = network_of(SmallDINOv2, 224)
    file = tmp_path / "dinov2_vitl14_pretrain.pth"
    torch.save({**network.state_dict(), "mask_token": torch.zeros(1, 32)}, file)
    extractor = SmallDINOv2(weights=tmp_path)
    features = extractor(LEVELS)
    with torch.inference_mode():
        wanted = network.forward_features(normalized(resized_by_pillow(224), extractor))[:, 0]
    assert features.shape == (3, 32)
    # Pillow rounds between its two passes as well, so single levels differ by one
    assert float((features - wanted).norm() / wanted.norm()) < 5e-3


def test_dinov2_position_embeddings_of_the_published_size(tmp_path):
    """Ramps stay ramps of step 37 / 16.1 but for the cubic's 0.05; 37 / 16 would be 0.2 off."""
    network = network_of(SmallDINOv2, 518)
    state = network.state_dict()
    row = torch.arange(37.0)[:, None].expand(37, 37)
    ramp = torch.stack([row, row.T], -1).repeat(1, 1, 16).reshape(1, 1369, 32)
    state["pos_embed"] = torch.cat([torch.full((1, 1, 32), 7.0), ramp], 1)
    torch.save(state, tmp_path / "w.pth")
    found = SmallDINOv2(weights=tmp_path / "w.pth").network.pos_embed
    assert found.shape == (1, 257, 32)
    assert bool((found[:, 0] == 7).all())
    rows = found[0, 1:].reshape(16, 16, 32)[:, 8, 0]
    wanted = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5
    torch.testing.assert_close(rows[1:-1], wanted[1:-1], rtol=0, atol=0.06)


def openai_layout(state):
    """The names that OpenAI and open_clip store the same tensors under."""
    names = [
        ("patch_embed.proj", "conv1"),
        ("pos_embed", "positional_embedding"),
        ("norm_pre", "ln_pre"),
        ("attn.qkv.", "attn.in_proj_"),
        ("attn.proj", "attn.out_proj"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
        ("norm1", "ln_1"),
        ("norm2", "ln_2"),
        ("blocks.", "transformer.resblocks."),
        ("cls_token", "class_embedding"),
    ]
    found = {"logit_scale": torch.ones(())}
    for name, value in state.items():
        key = "ln_post" + name[4:] if name.startswith("norm.") else name
        for ours, theirs in names:
            key = key.replace(ours, theirs)
        if name in ("cls_token", "pos_embed"):
            found[f"visual.{key}"] = value.squeeze()
        elif name == "head.weight":
            found["visual.proj"] = value.T
        elif name != "head.bias":
            found[f"visual.{key}"] = value
    return found


@pytest.mark.parametrize("layout", [dict, openai_layout])
def test_clip_is_the_unit_embedding_in_either_layout(tmp_path, layout):
    network = network_of(SmallCLIP, 336)
    torch.nn.init.zeros_(network.head.bias)
    torch.save(layout(network.state_dict()), tmp_path / "w.pth")
    extractor = SmallCLIP(weights=tmp_path / "w.pth")
    assert isinstance(extractor, Extractor)
    features = extractor(LEVELS)
    assert features.shape == (3, 768)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    pixels = torch.nn.functional.interpolate(
        LEVELS.float(), size=(336, 336), mode="bicubic", antialias=True
    )
    assert float(pixels.min()) < 0
    with torch.inference_mode():
        wanted = network(normalized(pixels, extractor))
    torch.testing.assert_close(features, wanted / wanted.norm(dim=1, keepdim=True))
    assert any(type(m).__name__ == "QuickGELU" for m in extractor.network.modules())


@pytest.mark.parametrize("kind", [DINOv2, CLIPImage])
def test_without_a_file_nothing_starts(monkeypatch, tmp_path, kind):
    monkeypatch.delenv("FLOWEXP_WEIGHTS", raising=False)
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    extractor = kind()
    with pytest.raises(UsageError, match="weights") as caught:
        extractor.check()
    assert caught.value.key == kind.key
    assert caught.value.remedy


def test_the_file_is_part_of_the_protocol(tmp_path):
    torch.save(network_of(SmallDINOv2, 224).state_dict(), tmp_path / "a.pth")
    first = SmallDINOv2(weights=tmp_path / "a.pth").weights_sha256
    state = network_of(SmallDINOv2, 224).state_dict()
    state["norm.bias"] += 1
    torch.save(state, tmp_path / "a.pth")
    assert SmallDINOv2(weights=tmp_path / "a.pth").weights_sha256 != first


def test_another_networks_file_is_refused(tmp_path):
    torch.save({"visual.proj": torch.ones(2, 3)}, tmp_path / "w.pth")
    for kind in (SmallDINOv2, SmallCLIP):
        with pytest.raises(UsageError, match="does not fit"):
            kind(weights=tmp_path / "w.pth").load()


def test_names():
    assert FrechetDistance(DINOv2(), name="fd_dinov2").name == "fd_dinov2"
    assert GaussianMMD(CLIPImage(), name="clip_mmd").settings.startswith(
        "Gaussian kernel, sigma 10"
    )
    with pytest.raises(ValueError, match="must not be called FID"):
        FrechetDistance(DINOv2(), name="fid_dinov2")
