"""EDM2's network: magnitudes, directions of gradients, options, and what it refuses."""

import pytest
import torch

from flowexp.networks import EDM2UNet
from flowexp.networks.edm2 import MPBlock
from flowexp.networks.magnitude_preserving import (
    MPConv,
    MPFourier,
    mp_cat,
    mp_silu,
    mp_sum,
    normalize,
    pixel_norm,
)
from tests.networks.tiny import NETWORKS, inputs, perturb


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def square(x):
    return float(x.detach().double().square().mean())


def image(channels, side=32, batch=8):
    return torch.randn(batch, channels, side, side)


@pytest.mark.parametrize(
    "made",
    [
        lambda: MPConv(64, 64, kernel=0)(torch.randn(4096, 64)),
        lambda: MPConv(64, 64, kernel=1)(image(64)),
        # zero padding takes from the border: only the inside
        lambda: MPConv(64, 64, kernel=3)(image(64))[..., 1:-1, 1:-1],
        lambda: mp_silu(torch.randn(100_000)),
        lambda: mp_sum(torch.randn(100_000), torch.randn(100_000), t=0.3),
        lambda: mp_cat(image(48), image(16), t=0.5),
        lambda: mp_cat(image(16), image(48), t=0.3),
        lambda: MPFourier(256)(torch.randn(1000)),
        lambda: normalize(7.0 * image(8)),
        lambda: pixel_norm(7.0 * image(8)),
    ],
)
def test_magnitudes_are_preserved(made):
    """Normal inputs of unit variance give expected squares of 1, to 3 percent."""
    assert square(made()) == pytest.approx(1.0, abs=0.03)


def test_skip_connections_contribute_their_share_of_the_magnitude():
    whole = mp_cat(image(16), image(48), t=0.3)
    sums = whole[:, :16].square().mean(), whole[:, 16:].square().mean()
    share = 48 * sums[1] / (16 * sums[0] + 48 * sums[1])
    assert float(share) == pytest.approx(0.3**2 / (0.3**2 + 0.7**2), abs=0.01)


@pytest.mark.parametrize("kernel", [0, 1, 3])
def test_the_length_of_a_weight_does_not_matter_and_gradients_turn_it_only(kernel):
    layer = MPConv(6, 5, kernel=kernel).double()
    x = torch.randn(4, 6, *((7, 7) if kernel else ()), dtype=torch.float64)
    out = layer(x)
    out.pow(3).sum().backward()
    slope, weight = layer.weight.grad.flatten(1), layer.weight.detach().flatten(1)
    assert slope.norm(dim=1).min() > 0.1
    radial = (slope * weight).sum(1) / (slope.norm(dim=1) * weight.norm(dim=1))
    # eps = 1e-4 in the norm leaves this much
    assert radial.abs().max() < 1e-3
    with torch.no_grad():
        layer.weight *= torch.linspace(1.0, 9.0, 5).reshape(-1, *[1] * (layer.weight.ndim - 1))
        torch.testing.assert_close(layer(x), out, rtol=3e-4, atol=3e-4)


def test_forced_normalisation_gives_every_row_unit_magnitude_and_changes_no_output():
    layer = MPConv(6, 5, kernel=3)
    x = image(6, side=8)
    with torch.no_grad():
        layer.weight *= 5.0
        before = layer(x)
        layer.before_step()
    magnitudes = layer.weight.detach().flatten(1).square().mean(1).sqrt()
    torch.testing.assert_close(magnitudes, torch.ones(5), rtol=0, atol=2e-4)
    torch.testing.assert_close(layer(x), before, rtol=0, atol=2e-3)


def test_a_pass_in_training_mode_changes_no_weight():
    network = NETWORKS["edm2"]().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(*inputs(network))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def blocks(**options):
    network = EDM2UNet(
        img_resolution=16,
        in_channels=1,
        out_channels=1,
        model_channels=8,
        channel_mult=(1, 2),
        num_blocks=1,
        **options,
    )
    modules = {**network.enc, **network.dec}
    return {name: layer for name, layer in modules.items() if isinstance(layer, MPBlock)}


def test_attention_is_at_its_resolutions_and_in_the_first_block_of_the_decoder():
    found = blocks(attn_resolutions=(16,), channels_per_head=8)
    heads = {name: layer.heads for name, layer in found.items() if layer.heads}
    assert heads == {"16x16_block0": 1, "16x16_block1": 1, "8x8_in0": 2}
    assert not any(layer.heads for layer in blocks(channels_per_head=64).values())


def test_dropout_can_be_at_some_resolutions_only():
    found = blocks(dropout=0.4, dropout_resolutions=(8,))
    assert {name for name, layer in found.items() if layer.dropout} == {
        name for name in found if name.startswith("8x8")
    }
    assert all(layer.dropout == 0.4 for layer in blocks(dropout=0.4).values())


def test_activations_are_clipped_without_changing_the_input():
    layer = MPBlock(4, 4, emb_channels=3, clip_act=0.5)
    x, emb = 3.0 * torch.randn(2, 4, 8, 8), torch.randn(2, 3)
    before = x.clone()
    out = layer(x, emb)
    assert float(out.detach().abs().max()) == 0.5
    assert torch.equal(x, before)
    layer.clip_act = None
    torch.testing.assert_close(layer(x, emb).clamp(-0.5, 0.5), out)


def test_a_bounded_modulation_is_almost_the_plain_one_for_a_unit_embedding():
    """So that sCM can start from the weights of an EDM2 network."""
    plain = MPBlock(256, 256, emb_channels=512)
    bounded = MPBlock(256, 256, emb_channels=512, modulation_norm=True)
    bounded.load_state_dict(plain.state_dict())
    emb = normalize(torch.randn(8, 512))
    with torch.no_grad():
        for layer in (plain, bounded):
            layer.emb_gain.fill_(0.5)
        difference = plain._modulation(emb) - bounded._modulation(emb)
        assert difference.square().mean() < 0.01 * (plain._modulation(emb) - 1.0).square().mean()
        large = bounded._modulation(100.0 * emb)
    torch.testing.assert_close(large, bounded._modulation(emb).detach(), rtol=1e-3, atol=1e-3)


def test_float16_and_bfloat16_stay_close_at_the_limit_of_activations():
    network = perturb(NETWORKS["edm2"]()).eval()
    x, c = inputs(network)
    with torch.no_grad():
        expected = network(50.0 * x, c)
        for dtype in (torch.float16, torch.bfloat16):
            with torch.autocast("cpu", dtype=dtype):
                found = network(50.0 * x, c).float()
            assert (found - expected).abs().mean() < 0.05 * expected.abs().mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channel_mult": ()}, "channel_mult"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"clip_act": 0.0}, "clip_act=0.0"),
        ({"bandwidth": 0.0}, "bandwidth=0.0"),
        ({"res_balance": 1.5}, r"res_balance=1.5; allowed: \[0, 1\]"),
        ({"resample_filter": (1, 2, 1)}, "resample_filter"),
        ({"channel_mult_emb": 0}, "channel_mult_emb=0"),
        ({"num_blocks": 0}, "num_blocks=0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NETWORKS["edm2"](**options)


def test_heads_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match="channels_per_head=8 makes 3 heads of 28 channels"):
        NETWORKS["edm2"](model_channels=28, attn_resolutions=(28,))
