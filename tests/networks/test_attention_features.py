"""Recording and replacing the values of attention layers."""

import pytest
import torch
from torch import nn

from flowexp.networks import MLP, ARFlow, DhariwalUNet, DiT, SongUNet, UNet
from flowexp.networks.attention_features import SharedValues, attention_values
from tests.networks.tiny import perturb

IMAGES = {"img_resolution": 8, "in_channels": 2, "out_channels": 2}
NETWORKS = {
    "unet": lambda: UNet(
        **IMAGES, model_channels=8, pixel_unshuffle=1, attn_resolutions=[4], head_dim=8
    ),
    "songunet": lambda: SongUNet(
        **IMAGES, model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4]
    ),
    "adm": lambda: DhariwalUNet(
        **IMAGES, model_channels=64, channel_mult=[1], num_blocks=1, attn_resolutions=[8]
    ),
    "dit": lambda: DiT(**IMAGES, hidden_size=16, depth=2, num_heads=2),
    "arflow": lambda: ARFlow(**IMAGES, hidden_size=16, depth=2, num_heads=2),
}
X, OTHER = torch.randn(2, 2, 2, 8, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
LEVEL = torch.tensor([0.3, 0.7])


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return perturb(NETWORKS[request.param]()).eval()


def test_every_attention_layer_has_a_place(network):
    projections = [m for name, m in network.named_modules() if name.endswith(("qkv", "v_proj"))]
    assert len(attention_values(network)) == len(projections) > 0
    assert not any("values" in key for key in network.state_dict())


@torch.no_grad()
def test_values_of_the_same_call_change_nothing_and_others_do(network):
    plain, other = network(X, LEVEL), network(OTHER, LEVEL)
    shared = SharedValues(network, device="cpu")
    with shared.recorded("a"):
        assert torch.equal(network(X, LEVEL), plain)
    with shared.recorded("b"):
        network(OTHER, LEVEL)
    with shared.replaced("a"):
        torch.testing.assert_close(network(X, LEVEL), plain)
    with shared.replaced("b"):
        assert not torch.allclose(network(X, LEVEL), plain, atol=1e-4)
        torch.testing.assert_close(network(OTHER, LEVEL), other)
    assert torch.equal(network(X, LEVEL), plain)
    assert shared.keys == {"a", "b"}


@torch.no_grad()
def test_a_doubled_batch_receives_them_twice(network):
    shared = SharedValues(network)
    with shared.recorded("a"):
        network(OTHER, LEVEL)
    with shared.replaced("a"):
        single = network(X, LEVEL)
        double = network(torch.cat([X, X]), LEVEL.repeat(2))
    torch.testing.assert_close(double, torch.cat([single, single]))


class Attention(nn.Module):
    """Three places in a row, each of which adds one."""

    def __init__(self):
        super().__init__()
        from flowexp.networks.attention_features import AttentionValues

        self.places = nn.ModuleList(AttentionValues() for _ in range(3))

    def forward(self, x):
        for place in self.places:
            x = place(x) + 1.0
        return x


def test_only_layers_from_the_first_layer_on_share():
    for first, expected in ((0, [0.0, 1.0, 2.0]), (1, [10.0, 1.0, 2.0]), (2, [10.0, 11.0, 2.0])):
        layers = Attention()
        shared = SharedValues(layers, first_layer=first)
        with shared.recorded(0):
            layers(torch.zeros(1, 1))
        seen = []
        for place in layers.places:
            place.register_forward_hook(lambda m, i, out, seen=seen: seen.append(float(out)))
        # hooks run in the order of registration: the watchers' come first here
        with shared.replaced(0):
            layers(torch.full((1, 1), 10.0))
        after = [10.0, *(v + 1.0 for v in expected[:-1])]
        assert seen == after


def test_refuses():
    mlp = MLP(in_channels=2, out_channels=2, hidden=8, depth=1)
    with pytest.raises(ValueError, match="MLP has 0 attention layers"):
        SharedValues(mlp)
    layers = Attention()
    with pytest.raises(ValueError, match="first_layer is 3"):
        SharedValues(layers, first_layer=3)
    shared = SharedValues(layers)
    with pytest.raises(KeyError, match="under x"), shared.replaced("x"):
        pass
    with shared.recorded("x"):
        layers(torch.zeros(2, 3))
    with shared.replaced("x"), pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        layers(torch.zeros(3, 3))


def test_a_failed_call_leaves_no_hook():
    layers = Attention()
    shared = SharedValues(layers)
    with pytest.raises(RuntimeError, match="stop"), shared.recorded("x"):
        raise RuntimeError("stop")
    layers(torch.zeros(1))
    assert shared.keys == set()
