"""The small U-Net."""

import pytest
import torch

from flowexp.networks import UNet
from flowexp.networks.unet import _norm
from tests.networks.tiny import perturb

FASHION = {"img_resolution": 28, "in_channels": 1, "out_channels": 1, "label_dim": 10}


def test_defaults_stay_small():
    with torch.device("meta"):
        network = UNet(**FASHION)
    assert 0.5e6 < sum(p.numel() for p in network.parameters()) < 0.7e6
    assert network.min_multiple == 4


@pytest.mark.parametrize(
    ("size", "fold"), [(8, 1), (28, 2), (32, 2), (64, 2)], ids=["digits", "28", "32", "64"]
)
def test_the_sizes_it_is_made_for_need_no_padding(size, fold):
    network = UNet(**FASHION | {"img_resolution": size}, pixel_unshuffle=fold)
    assert network.padded_resolution == size


def test_pixels_of_a_folded_cell_share_the_output_filter():
    # A checker texture appears when the 4 pixels of a 2 x 2 cell come from different channels of
    # the last layer; here one 3 x 3 filter at full resolution writes all of them.
    network = UNet(**FASHION)
    last = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    assert last.weight.shape == (1, 16, 3, 3)
    seen = []
    last.register_forward_hook(lambda module, args, out: seen.append(out.shape[-2:]))
    network(torch.zeros(1, 1, 28, 28), torch.zeros(1))
    assert seen == [(28, 28)]


def test_full_resolution_detail_of_the_input_reaches_the_output():
    # The mean over each 2 x 2 cell is the same, only the order of the pixels inside it differs.
    network = perturb(UNet(**FASHION)).eval()
    x = torch.randn(1, 1, 28, 28)
    shuffled = x.unflatten(2, (14, 2)).flip(3).flatten(2, 3)
    change = network(x, torch.zeros(1)) - network(shuffled, torch.zeros(1))
    assert change.abs().max() > 1e-2


def test_attention_only_at_the_named_sizes():
    def count(resolutions):
        network = UNet(**FASHION, attn_resolutions=resolutions)
        return sum(name.endswith("attention") for name, _ in network.named_modules())

    assert count(()) == 0
    assert count((7,)) == 1 + 1 + 2
    assert count((14,)) == 1 + 2
    assert count((28,)) == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"pixel_unshuffle": 3}, "pixel_unshuffle=3"),
        ({"channel_mult": ()}, "channel_mult"),
        ({"model_channels": 30}, "model_channels=30"),
        ({"head_channels": 2}, "head_channels=2"),
        ({"attn_resolutions": (7,), "head_dim": 24}, "head_dim=24"),
        ({"num_blocks": 0}, "num_blocks=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"img_resolution": 0}, "img_resolution=0"),
    ],
)
def test_bad_arguments_name_themselves(options, match):
    with pytest.raises(ValueError, match=match):
        UNet(**FASHION | options)


@pytest.mark.parametrize("channels", [4, 8, 96, 128, 136, 160, 1000])
def test_group_norm_always_divides(channels):
    norm = _norm(channels)
    assert channels % norm.num_groups == 0
    assert norm.num_groups <= 32
    assert channels // norm.num_groups >= 4


def test_dropout_acts_in_training_only():
    network = perturb(UNet(**FASHION, dropout=0.5))
    x, c = torch.randn(2, 1, 28, 28), torch.zeros(2)
    assert not torch.equal(network.train()(x, c), network(x, c))
    assert torch.equal(network.eval()(x, c), network(x, c))
