"""Images, masks, maps, frames and sets as further channels of a network's input."""

import copy

import pytest
import torch

from flowexp.networks import UNet
from flowexp.networks.base import facts_of
from flowexp.networks.caption import CaptionedNetwork, WordEncoder
from flowexp.networks.conditions import (
    FrameStack,
    Image,
    ImageSet,
    Mask,
    SemanticMap,
    nearest,
    without_condition,
)
from flowexp.networks.foreign import call_network
from flowexp.networks.low_rank import LowRank
from flowexp.training.precision import AutocastNetwork
from tests.networks.tiny import IMAGE, NETWORKS, inputs, perturb

X = torch.zeros(4, 1, 8, 8)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes(*shape, below, seed=0):
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


KINDS = {
    "image": (lambda **o: Image(channels=3, **o), noise(4, 3, 8, 8)),
    "mask": (lambda **o: Mask(**o), noise(4, 1, 8, 8).sign()),
    "map": (lambda **o: SemanticMap(classes=5, **o), classes(4, 8, 8, below=5)),
    "frames": (lambda **o: FrameStack(frames=2, channels=6, **o), noise(4, 2, 3, 8, 8)),
    "set": (lambda **o: ImageSet(image_channels=3, **o), noise(4, 5, 3, 8, 8)),
}
every = pytest.mark.parametrize("kind", sorted(KINDS))


def dropped(channels):
    return ~channels.flatten(1).any(dim=1)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_channels_have_the_size_and_dtype_of_the_input(kind, dtype):
    make, value = KINDS[kind]
    condition = make()
    found = condition(value, X.to(dtype))
    assert found.shape == (4, condition.channels, 8, 8)
    assert found.dtype == dtype
    assert not dropped(found).any()


@every
def test_none_gives_zeros(kind):
    make, value = KINDS[kind]
    condition = make(noise=0.5).train() if kind not in ("map",) else make().train()
    assert not condition(None, X).any()
    assert not condition(without_condition(value), X).any()


@every
@pytest.mark.statistical
def test_a_row_is_dropped_with_its_probability(kind):
    """Of 4000 rows 0.3 +- 0.03, four standard deviations: wrong by chance once in 15,000 tests."""
    make, value = KINDS[kind]
    condition, x = make(dropout=0.3).train(), torch.zeros(4000, 1, 2, 2)
    rows = value[..., :2, :2].repeat(1000, *[1] * (value.ndim - 1))
    torch.manual_seed(1)
    found = condition(rows, x)
    gone = dropped(found)
    assert abs(float(gone.float().mean()) - 0.3) < 0.03
    whole = condition.eval()(rows, x)
    assert not dropped(whole).any()
    torch.testing.assert_close(found[~gone], whole[~gone])


@pytest.mark.statistical
def test_noise_has_its_standard_deviation_and_is_off_in_evaluation():
    """Of 60,000 numbers 0.2 +- 0.0025, more than four standard deviations of the estimate."""
    condition, value = Image(channels=3, noise=0.2).train(), noise(300, 3, 8, 8)
    torch.manual_seed(2)
    difference = condition(value, torch.zeros(300, 1, 8, 8)) - value
    assert abs(float(difference.std()) - 0.2) < 0.0025
    assert torch.equal(condition.eval()(value, torch.zeros(300, 1, 8, 8)), value)


def test_noise_is_not_added_to_images_that_are_not_there():
    value = noise(4, 5, 3, 8, 8)
    value[:, 3:] = 0.0
    value[1] = 0.0
    condition = ImageSet(image_channels=3, noise=0.5).train()
    changed = condition._noised(value)
    assert not changed[:, 3:].any()
    assert not changed[1].any()
    assert (changed[0, :3] != value[0, :3]).all()
    assert dropped(condition(value, X)).tolist() == [False, True, False, False]


def test_images_frames_and_sets_are_resized_smoothly_and_masks_by_nearest_neighbours():
    ramp = torch.linspace(-1, 1, 16).expand(4, 1, 16, 16)
    small = Image(channels=1)(ramp, X)
    torch.testing.assert_close(small[0, 0, 0, 1:-1], ramp[0, 0, 0].view(8, 2).mean(1)[1:-1])
    mask = noise(4, 1, 16, 16).sign()
    assert torch.equal(Mask()(mask, X), mask[..., ::2, ::2])
    assert torch.equal(nearest(mask, (8, 8)), mask[..., ::2, ::2])
    frames = FrameStack(frames=2, channels=2)(ramp[:, None].expand(4, 2, 1, 16, 16), X)
    torch.testing.assert_close(frames, small.expand(4, 2, 8, 8))


def test_a_set_has_no_order_and_padding_does_not_count():
    condition = perturb(ImageSet(image_channels=3))
    value = KINDS["set"][1]
    found = condition(value, X)
    torch.testing.assert_close(condition(value[:, [4, 2, 0, 1, 3]], X), found)
    padded = torch.cat([value, torch.zeros(4, 2, 3, 8, 8)], dim=1)
    torch.testing.assert_close(condition(padded, X), found)
    assert not torch.allclose(condition(value[:, :2], X), found)


def test_a_map_is_one_hot_and_halved_and_its_projection_learns():
    condition = SemanticMap(classes=3)
    value = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, -1, 0, 1], [2, -1, 1, 0]])[None]
    maps = condition.rescaled(value, (2, 2))
    assert maps.shape == (1, 3, 2, 2)
    assert maps[0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert maps[0, :, 1, 0].tolist() == [0.0, 0.0, 0.5]
    assert maps[0, :, 1, 1].tolist() == [0.5, 0.5, 0.0]
    condition(value, torch.zeros(1, 1, 2, 2)).square().sum().backward()
    assert condition.project.weight.grad.any()


@pytest.mark.parametrize(
    ("condition", "value", "named"),
    [
        (Image(channels=3), noise(4, 1, 8, 8), r"float \(B, 3, h, w\)"),
        (Image(channels=1), classes(4, 1, 8, 8, below=5), "Image is int64"),
        (Image(channels=3), noise(2, 3, 8, 8), "Image has 2 rows; allowed: 4"),
        (Mask(), noise(4, 2, 8, 8), r"float \(B, 1, h, w\)"),
        (SemanticMap(classes=5), noise(4, 8, 8), r"integer \(B, h, w\)"),
        (SemanticMap(classes=5), classes(4, 8, 8, below=6), "classes 0 .. 5; allowed: -1 to 4"),
        (SemanticMap(classes=5), classes(4, 4, 4, below=5), "h, w = 8, 8 times a power of 2"),
        (FrameStack(frames=2, channels=2), noise(4, 3, 1, 8, 8), r"float \(B, 2, 1, h, w\)"),
        (ImageSet(image_channels=3), noise(4, 5, 1, 8, 8), r"float \(B, N, 3, h, w\)"),
        (ImageSet(image_channels=3), noise(4, 0, 3, 8, 8), "ImageSet is float32"),
    ],
)
def test_wrong_values_are_refused(condition, value, named):
    with pytest.raises(ValueError, match=named):
        condition(value, X)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: Image(channels=0), "channels=0"),
        (lambda: Image(channels=1, dropout=1.0), "dropout=1.0"),
        (lambda: Image(channels=1, noise=-1.0), "noise=-1.0"),
        (lambda: Image(channels=1, noise=float("nan")), "noise=nan"),
        (lambda: SemanticMap(classes=0), "classes=0"),
        (lambda: FrameStack(frames=2, channels=3), "frames=2"),
        (lambda: ImageSet(image_channels=0), "image_channels=0"),
        (lambda: NETWORKS["mlp"](conditions={"mask": Mask()}), "allowed: none, for points"),
        (lambda: network(labels=Mask()), "conditions has labels; allowed: other names"),
    ],
)
def test_bad_arguments_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()


def network(**conditions):
    return UNet(**IMAGE | {"model_channels": 8}, conditions=conditions)


def test_channels_follow_the_alphabet_not_the_order_of_the_config():
    first = network(image=Image(channels=1), mask=Mask())
    torch.manual_seed(0)
    x, c = inputs(first)
    given = {"mask": noise(4, 1, 28, 28).sign(), "image": noise(4, 1, 28, 28)}
    joined = first._joined(x, given)
    assert torch.equal(joined, torch.cat([x, given["image"], given["mask"]], dim=1))
    second = network(mask=Mask(), image=Image(channels=1))
    perturb(first)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(x, c, **given), second.eval()(x, c, **given))


def test_unknown_conditions_are_refused_and_none_is_none():
    made = network(image=Image(channels=1)).eval()
    x, c = inputs(made)
    with pytest.raises(ValueError, match="conditions has mask; allowed: image"):
        made(x, c, mask=x)
    with pytest.raises(ValueError, match="conditions has image; allowed: none"):
        network()(x, c, image=x)
    assert torch.equal(network().eval()(x, c, image=None), network().eval()(x, c))


@pytest.mark.statistical
def test_conditions_are_dropped_together_as_far_as_their_shares_go():
    """Of 2000 rows 0.2 and 0.5, each +- 0.045: wrong by chance once in 15,000 tests."""
    made = network(image=Image(channels=1, dropout=0.5), mask=Mask(dropout=0.2)).train()
    x = torch.ones(2000, 1, 4, 4)
    torch.manual_seed(3)
    joined = made._joined(x, {"image": x, "mask": x})
    image, mask = dropped(joined[:, 1:2]), dropped(joined[:, 2:3])
    assert abs(float(image.float().mean()) - 0.5) < 0.045
    assert abs(float(mask.float().mean()) - 0.2) < 0.045
    assert bool((image | ~mask).all())
    torch.manual_seed(3)
    assert torch.equal(made._joined(x, {"image": x, "mask": x}), joined)


def test_without_conditions_nothing_changes():
    """The same weights from a seed, the same names in the state dict, no further random draw."""
    torch.manual_seed(0)
    plain = UNet(**IMAGE | {"model_channels": 8})
    torch.manual_seed(0)
    empty = UNet(**IMAGE | {"model_channels": 8}, conditions={})
    assert list(plain.state_dict()) == list(empty.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), empty.parameters(), strict=True)
    )
    before = torch.get_rng_state()
    x, c = inputs(plain)
    empty.train()(x, c)
    assert torch.equal(torch.get_rng_state(), before)


def test_wrappers_pass_conditions_on_and_know_their_shares():
    inner = perturb(network(image=Image(channels=1, dropout=0.1), mask=Mask())).eval()
    x, c = inputs(inner)
    given = {"image": noise(4, 1, 28, 28), "mask": noise(4, 1, 28, 28).sign()}
    expected = inner(x, c, **given)
    captioned = CaptionedNetwork(network=copy.deepcopy(inner), encoder=WordEncoder(), width=64)
    low_rank = LowRank(network=copy.deepcopy(inner), label_dim=inner.label_dim)
    for wrapper in (captioned, low_rank, AutocastNetwork(inner, dtype=torch.bfloat16)):
        found = call_network(wrapper.eval(), x, c, given)
        close = {"rtol": 0.1, "atol": 0.1} if isinstance(wrapper, AutocastNetwork) else {}
        torch.testing.assert_close(found, expected, **close)
        assert facts_of(wrapper).condition_dropout == {"image": 0.1, "mask": 0.0}


def test_a_foreign_module_gets_them_by_name():
    class Foreign(torch.nn.Module):
        def forward(self, x, t, image=None):
            return x + image

    x = noise(4, 1, 8, 8)
    assert torch.equal(call_network(Foreign(), x, torch.zeros(4), {"image": x}), 2 * x)
    assert facts_of(Foreign()).condition_dropout is None


def test_a_compiled_network_takes_them():
    made = perturb(network(map=SemanticMap(classes=3), mask=Mask())).eval()
    x, c = inputs(made)
    given = {"map": classes(4, 28, 28, below=3), "mask": noise(4, 1, 28, 28).sign()}
    compiled = torch.compile(made, backend="eager")
    torch.testing.assert_close(compiled(x, c, **given), made(x, c, **given))
