"""SongUNet and DhariwalUNet beyond the golden vectors."""

import math

import pytest
import torch
import torch.nn.functional as F

from flowexp.networks import DhariwalUNet, SongUNet
from flowexp.networks.songunet_layers import Conv2d, GroupNorm, Init, Linear, kaiming_uniform
from tests.networks.tiny import NETWORKS, perturb

SIZES = {"img_resolution": 16, "in_channels": 3, "out_channels": 3}


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_resampling_keeps_a_constant_and_the_mean(taps, direction):
    conv = Conv2d(2, 2, kernel=0, resample_filter=taps, **{direction: True})
    ones = conv(torch.ones(1, 2, 16, 16))
    assert ones.shape[-1] == (32 if direction == "up" else 8)
    torch.testing.assert_close(ones[..., 2:-2, 2:-2], torch.ones_like(ones[..., 2:-2, 2:-2]))
    x = torch.zeros(1, 2, 16, 16)
    x[..., 4:12, 4:12] = torch.randn(1, 2, 8, 8)
    gain = 4 if direction == "up" else 0.25
    torch.testing.assert_close(conv(x).sum(), x.sum() * gain, rtol=1e-4, atol=1e-4)


def test_box_filter_is_average_pooling_and_nearest_neighbour():
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(Conv2d(3, 3, kernel=0, down=True)(x), F.avg_pool2d(x, 2))
    up = Conv2d(3, 3, kernel=0, up=True)(x)
    torch.testing.assert_close(up, F.interpolate(x, scale_factor=2.0, mode="nearest"))


def test_filter_last_equals_full_resolution_convolution_inside():
    torch.manual_seed(0)
    conv = Conv2d(
        2,
        5,
        kernel=3,
        down=True,
        resample_filter=(1, 3, 3, 1),
        filter_last=True,
        init=Init(bias=1.0),
    )
    x = torch.randn(1, 2, 16, 16)
    full = F.conv2d(x, conv.weight, padding=1)
    expected = Conv2d(5, 5, kernel=0, down=True, resample_filter=(1, 3, 3, 1))(full)
    out = conv(x) - conv.bias[:, None, None]
    torch.testing.assert_close(out[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
    assert out.shape == expected.shape


def test_both_directions_at_once_are_refused():
    with pytest.raises(ValueError, match="up=True, down=True"):
        Conv2d(1, 1, kernel=3, up=True, down=True)


@pytest.mark.parametrize(("channels", "groups"), [(8, 2), (128, 32), (256, 32), (3, 1), (1344, 32)])
def test_group_rule(channels, groups):
    assert GroupNorm(channels, eps=1e-6).num_groups == groups


def test_channels_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="num_channels=130"):
        GroupNorm(130, eps=1e-6)


@pytest.mark.parametrize("bad", ["embedding_type", "encoder_type", "decoder_type"])
def test_unknown_option_lists_the_known_ones(bad):
    with pytest.raises(ValueError, match=f"{bad}='nearest'.*standard|{bad}.*positional, fourier"):
        SongUNet(**SIZES, **{bad: "nearest"})


@pytest.mark.parametrize("network", [SongUNet, DhariwalUNet])
@pytest.mark.parametrize("bad", [{"channel_mult": ()}, {"num_blocks": 0}, {"dropout": 1.0}])
def test_impossible_sizes_name_themselves(network, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        network(**SIZES, **bad)


def test_level_names_use_the_padded_resolution():
    network = NETWORKS["ddpmpp"]()
    assert network.levels == ("32x32", "16x16", "8x8", "4x4")
    assert network.attention == (False, True, False, False)
    assert network.padded_resolution == 32
    assert network.img_resolution == 28


@pytest.mark.parametrize("kind", ["ddpmpp", "ncsnpp", "song_skip", "adm"])
def test_28_pixels_are_the_centre_of_32(kind):
    small, large = NETWORKS[kind]().eval(), NETWORKS[kind](img_resolution=32).eval()
    perturb(small)
    large.load_state_dict(small.state_dict())
    x, c = torch.randn(2, 1, 28, 28), torch.zeros(2)
    expected = large(F.pad(x, (2, 2, 2, 2)), c)[..., 2:-2, 2:-2]
    torch.testing.assert_close(small(x, c), expected, rtol=0, atol=0)


@pytest.mark.parametrize("heads_of", ["ddpmpp", "adm"])
def test_attention_is_softmax_of_scaled_products_per_head(heads_of):
    network = perturb(NETWORKS[heads_of](model_channels=64, channel_mult=(1, 2)))
    block = network.dec[f"{network.levels[-1]}_in0"]
    assert block.heads == (1 if heads_of == "ddpmpp" else 2)
    x = torch.randn(2, 128, 3, 3)
    qkv = block.qkv(x).reshape(2, block.heads, 128 // block.heads, 3, 9)
    q, k, v = qkv[:, :, :, 0], qkv[:, :, :, 1], qkv[:, :, :, 2]
    weights = torch.einsum("bhcq,bhck->bhqk", q, k) / math.sqrt(128 / block.heads)
    expected = torch.einsum("bhqk,bhck->bhcq", weights.softmax(-1), v).reshape(2, 128, 3, 3)
    torch.testing.assert_close(block._attend(block.qkv(x)), expected, rtol=1e-4, atol=1e-5)


def test_initial_values_follow_their_distributions():
    torch.manual_seed(0)
    network = SongUNet(**SIZES, model_channels=32, channel_mult=(1, 2), num_blocks=1)
    block = network.enc["8x8_block0"]
    bound = math.sqrt(6 / (9 * 32 + 9 * 64))
    assert 0.99 * bound < block.conv0.weight.abs().max() <= bound
    assert 0 < block.conv1.weight.abs().max() <= 1e-5 * math.sqrt(6 / (9 * 64 + 9 * 64))
    assert block.conv0.bias.abs().max() == 0
    layer = Linear(100, 50, init=Init(kaiming_uniform, math.sqrt(1 / 3), math.sqrt(1 / 3)))
    assert 0.099 < layer.weight.abs().max() <= 0.1
    assert 0 < layer.bias.abs().max() <= 0.1
    adm = DhariwalUNet(**SIZES, model_channels=32, channel_mult=(1, 2), num_blocks=1)
    assert adm.out_conv.weight.abs().max() == 0


def test_dropout_acts_in_training_only():
    network = perturb(NETWORKS["ddpmpp"](dropout=0.5))
    x, c = torch.randn(2, 1, 28, 28), torch.zeros(2)
    assert not torch.equal(network.train()(x, c), network(x, c))
    assert torch.equal(network.eval()(x, c), network(x, c))
