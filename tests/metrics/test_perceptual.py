import copy
import pickle

import pytest
import torch
from torch import nn

from flowexp.metrics import LPIPS, EfficientNetLite0, EfficientNetPerceptual
from tests.metrics.random_weights import save_backbone


@pytest.fixture(scope="module")
def distances(tmp_path_factory):
    file = save_backbone(tmp_path_factory.mktemp("weights") / "alex.pth", "alex")
    return {
        "lpips": LPIPS(weights=file, net="alex"),
        "efficientnet": EfficientNetPerceptual(layers=[0, 2, 4]),
    }


KINDS = ["lpips", "efficientnet"]


def images(n=3, *, side=32, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(n, channels, side, side, generator=generator) - 1


@pytest.mark.parametrize("kind", KINDS)
def test_zero_for_equal_images_symmetric_and_growing_with_noise(distances, kind):
    distance = distances[kind]
    a, noise = images(), images(seed=1)
    assert distance(a, a).tolist() == [0, 0, 0]
    steps = torch.stack([distance(a, a + size * noise) for size in (0.05, 0.1, 0.2, 0.4)])
    assert bool((steps.diff(dim=0) > 0).all())
    torch.testing.assert_close(distance(a, noise), distance(noise, a), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_do_not_see_each_other(distances, kind):
    a, b = images(), images(seed=1)
    whole = distances[kind](a, b)
    single = torch.cat([distances[kind](a[i : i + 1], b[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_flow_to_both_images_and_are_right(distances, kind):
    """Against a central difference along the gradient, in which the distance is smooth enough."""
    a, b = images(1).requires_grad_(), images(1, seed=1).requires_grad_()
    distances[kind](a, b).sum().backward()
    for image, swap in ((a, False), (b, True)):
        slope = image.grad.norm()
        assert float(slope) > 0
        step = 2e-2 * image.grad / slope
        ends = [image.detach() + sign * step for sign in (1, -1)]
        other = (a if swap else b).detach()
        up, down = (distances[kind](end, other) for end in ends)
        assert float((up - down) / 4e-2) == pytest.approx(float(slope), rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_finite_gradient_where_images_are_equal_or_flat(distances, kind):
    flat = torch.zeros(2, 3, 32, 32).requires_grad_()
    distances[kind](flat, flat.detach()).sum().backward()
    assert bool(flat.grad.isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_weights_belong_to_nobody(distances, kind):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.distance = distances[kind]

    holder = Holder()
    holder.distance(images(), images(seed=1))
    assert sorted(holder.state_dict()) == ["layer.bias", "layer.weight"]
    assert len(list(holder.parameters())) == 2
    assert not any(p.requires_grad for p in distances[kind]._network.parameters())
    assert not distances[kind]._network.training


@pytest.mark.parametrize("kind", KINDS)
def test_full_precision_under_autocast_and_for_half_images(distances, kind):
    a, b = images(), images(seed=1)
    wanted = distances[kind](a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = distances[kind](a, b)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)
    assert distances[kind](a.bfloat16(), b.bfloat16()).dtype == torch.float32


def test_loaded_in_inference_mode_it_can_still_be_differentiated_through():
    distance = EfficientNetPerceptual(layers=[1])
    with torch.inference_mode():
        distance(images(), images(seed=1))
    a = images().requires_grad_()
    distance(a, images(seed=1)).sum().backward()
    assert float(a.grad.abs().sum()) > 0


def test_nothing_is_read_before_the_first_call_and_copies_work():
    fresh = EfficientNetPerceptual()
    assert "_network" not in vars(fresh)
    again = pickle.loads(pickle.dumps(copy.deepcopy(fresh)))
    assert again.features_name == "EfficientNet-Lite0 b0 b1 b2 b3 b4"


def test_efficientnet_by_its_formula():
    """The mean map of one stage is the extractor's; distances are between unit vectors."""
    distance, extractor = EfficientNetPerceptual(layers=[3]), EfficientNetLite0(block=3, size=None)
    levels = torch.randint(
        0, 256, (2, 2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    a, b = (x.float() / 127.5 - 1 for x in levels)
    network = extractor.load().network
    maps = []
    for x in (a, b):
        f = network.blocks[:4](network.bn1(network.conv_stem(x)))
        maps.append(f / f.norm(dim=1, keepdim=True))
    torch.testing.assert_close(extractor(levels[0]), network.blocks[:4](
        network.bn1(network.conv_stem(a))).mean((2, 3)), rtol=1e-4, atol=1e-4)  # fmt: skip
    wanted = (maps[0] - maps[1]).square().sum(1).mean((1, 2))
    torch.testing.assert_close(distance(a, b), wanted, rtol=1e-4, atol=1e-6)
    assert distance.weights_sha256 == extractor.weights_sha256


def test_resize_up_is_plain_bilinear_and_down_is_low_passed():
    a, b = images(), images(seed=1)
    enlarged = [torch.nn.functional.interpolate(x, size=(64, 64), mode="bilinear") for x in (a, b)]
    found = EfficientNetPerceptual(resize=64)(a, b)
    torch.testing.assert_close(found, EfficientNetPerceptual()(*enlarged), rtol=1e-5, atol=1e-7)
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1
    fine = board.expand(1, 3, 64, 64)
    reduced = EfficientNetPerceptual(resize=32)
    assert float(reduced(fine, -fine)) < 0.01 * float(EfficientNetPerceptual()(fine, -fine))
    assert reduced.resize_name == "torch bilinear to 32"


@pytest.mark.parametrize("layers", [[], [3, 1], [1, 1], [7], [-1]])
def test_impossible_layers(layers):
    with pytest.raises(ValueError, match="layers"):
        EfficientNetPerceptual(layers=layers)


def test_bad_images_are_named(distances):
    distance = distances["efficientnet"]
    with pytest.raises(ValueError, match="one shape"):
        distance(images(2), images(3))
    with pytest.raises(ValueError, match="1 or 3"):
        distance(images(channels=2), images(channels=2))
    with pytest.raises(ValueError, match="at least 32 pixels"):
        distance(images(side=28), images(side=28))
    with pytest.raises(ValueError, match="resize must be at least 32"):
        EfficientNetPerceptual(resize=16)
