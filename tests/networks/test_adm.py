"""DhariwalUNet as DDPM's and guided-diffusion's U-Net; sizes are tested with the recipes."""

import math

import pytest
import torch
import torch.nn.functional as F

from flowexp.networks import DhariwalUNet
from flowexp.networks.songunet_layers import Resample
from tests.networks.tiny import NETWORKS, inputs, perturb

CIFAR10 = {"img_resolution": 32, "in_channels": 3, "out_channels": 3}


def test_resampling_without_blocks_is_strided_nearest_or_mean():
    torch.manual_seed(0)
    x, emb = torch.randn(2, 3, 8, 8), torch.zeros(2, 4)
    down, up = Resample(3, 3, kernel=3, down=True), Resample(3, 3, kernel=3, up=True)
    strided = F.conv2d(x, down.weight, down.bias, stride=2, padding=1)
    torch.testing.assert_close(down(x, emb), strided)
    nearest = F.interpolate(x, scale_factor=2.0, mode="nearest")
    torch.testing.assert_close(up(x, emb), F.conv2d(nearest, up.weight, up.bias, padding=1))
    torch.testing.assert_close(Resample(3, 3, kernel=0, down=True)(x, emb), F.avg_pool2d(x, 2))
    torch.testing.assert_close(Resample(3, 3, kernel=0, up=True)(x, emb), nearest)


def written_out(w, x, c_noise):
    """DDPM's U-Net of tests.networks.tiny: 4 levels of 1 block, attention at the third."""

    def conv(h, name, **k):
        return F.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], **k)

    def linear(h, name):
        return F.linear(h, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(h, name):
        groups = min(32, h.shape[1] // 4)
        return F.group_norm(h, groups, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)

    def block(h, name):
        inner = conv(F.silu(norm(h, f"{name}.norm0")), f"{name}.conv0", padding=1)
        inner = inner + linear(F.silu(emb), f"{name}.affine")[:, :, None, None]
        inner = conv(F.silu(norm(inner, f"{name}.norm1")), f"{name}.conv1", padding=1)
        return inner + (conv(h, f"{name}.skip") if f"{name}.skip.weight" in w else h)

    def attention(h, name):
        if f"{name}.qkv.weight" not in w:
            return h
        q, k, v = (
            conv(norm(h, f"{name}.norm2"), f"{name}.qkv").flatten(2).unflatten(1, (-1, 3)).unbind(2)
        )
        scores = (q.transpose(1, 2) @ k / math.sqrt(h.shape[1])).softmax(-1)
        return h + conv((v @ scores.transpose(1, 2)).unflatten(2, h.shape[2:]), f"{name}.proj")

    i = torch.arange(16)
    phase = c_noise[:, None] * 10000.0 ** (-i / 15)
    waves = torch.cat([phase.cos(), phase.sin()], dim=1)
    emb = linear(F.silu(linear(waves, "map_layer0")), "map_layer1")
    h = conv(x, "enc.32x32_conv", padding=1)
    skips = [h]
    levels = ["32x32", "16x16", "8x8", "4x4"]
    for level in levels:
        if level != "32x32":
            h = conv(h, f"enc.{level}_down", stride=2, padding=1)
            skips.append(h)
        h = attention(block(h, f"enc.{level}_block0"), f"enc.{level}_block0")
        skips.append(h)
    h = attention(block(h, "dec.4x4_in0"), "dec.4x4_in0")
    h = block(h, "dec.4x4_in1")
    for level in reversed(levels):
        if level != "4x4":
            h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            h = conv(h, f"dec.{level}_up", padding=1)
        for n in range(2):
            h = block(torch.cat([h, skips.pop()], dim=1), f"dec.{level}_block{n}")
            h = attention(h, f"dec.{level}_block{n}")
    assert not skips
    return conv(F.silu(norm(h, "out_norm")), "out_conv", padding=1)


def test_the_forward_pass_is_ddpms():
    network = perturb(NETWORKS["ddpm"](img_resolution=32, label_dim=0, augment_dim=0)).eval()
    x, c_noise = inputs(network, size=32)
    with torch.no_grad():
        expected = written_out(dict(network.named_parameters()), x, 100 * c_noise)
        torch.testing.assert_close(network(x, 100 * c_noise), expected, rtol=1e-4, atol=1e-4)


def test_initial_weights_are_pytorchs_or_ddpms():
    torch.manual_seed(0)
    ours = NETWORKS["adm_pooled"]().enc["32x32_block0"].conv0
    theirs = torch.nn.Conv2d(32, 32, 3)
    bound = 1 / math.sqrt(9 * 32)
    for layer in (ours, theirs):
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert 0 < layer.bias.abs().max() <= bound
    block = NETWORKS["ddpm"]().enc["32x32_block0"]
    glorot = math.sqrt(6 / (2 * 9 * 32))
    assert 0.99 * glorot < block.conv0.weight.abs().max() <= glorot
    assert 0 < block.conv1.weight.abs().max() <= 1e-5 * glorot
    assert not block.conv0.bias.any()


@pytest.mark.parametrize(
    "bad", [{"resample_kernel": 2}, {"head_channels": 0}, {"head_channels": 50}]
)
def test_impossible_options_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        DhariwalUNet(**CIFAR10, **bad)
