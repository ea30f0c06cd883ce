"""Low-rank changes: the base network at first, what is trained, what is stored and loaded."""

import copy

import pytest
import torch
from torch import nn

from flowexp.errors import UsageError
from flowexp.networks.dit import DiT
from flowexp.networks.low_rank import LowRank
from flowexp.networks.mlp import MLP
from flowexp.networks.unet import UNet


def unet(**options):
    torch.manual_seed(0)
    given = {"img_resolution": 8, "in_channels": 1, "out_channels": 1, "label_dim": 3}
    network = UNet(**given | {"model_channels": 16, "pixel_unshuffle": 1} | options)
    for p in network.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.02)
    return network.eval()


def evaluated(network):
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(4, 1, 8, 8, generator=rng)
    return network(x, torch.linspace(0, 1, 4), labels=torch.arange(4) - 1)


def test_starts_as_the_network_exactly():
    network = unet()
    before = evaluated(copy.deepcopy(network))
    assert torch.equal(evaluated(LowRank(network=network, rank=4, label_dim=3)), before)


def test_only_the_changes_are_trained():
    network = LowRank(network=unet(), rank=2, label_dim=3)
    base = {k: v.clone() for k, v in network.state_dict().items() if "weight.0" not in k}
    trained = [p for p in network.parameters() if p.requires_grad]
    changes = [p for name, p in network.named_parameters() if name.endswith((".0.a", ".0.b"))]
    assert {*map(id, trained)} == {*map(id, changes)}
    optimizer = torch.optim.SGD(trained, lr=0.1)
    before = evaluated(network)
    for _ in range(2):
        optimizer.zero_grad()
        evaluated(network).square().mean().backward()
        optimizer.step()
    assert all(p.grad is None for p in network.parameters() if not p.requires_grad)
    assert all(bool(p.grad.any()) for p in changes)
    assert not torch.equal(evaluated(network), before)
    for name, tensor in base.items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_a_change_has_the_rank_and_the_place_that_are_stated():
    network = LowRank(network=unet(), rank=3, label_dim=3)
    layer = next(
        m for m in network.modules() if hasattr(m, "parametrizations") and m.weight.ndim == 4
    )
    original = layer.parametrizations.weight.original
    change = layer.parametrizations.weight[0]
    nn.init.normal_(change.b)
    difference = (layer.weight - original).flatten(1)
    assert int(torch.linalg.matrix_rank(difference)) == min(3, *difference.shape)
    torch.testing.assert_close(difference, change.b @ change.a, rtol=1e-4, atol=1e-5)


def test_about_two_percent_of_the_parameters_of_a_published_network():
    """Rank 4 on BOSS's CIFAR-10 network; the paper's appendix says about 2 %."""
    from flowexp.networks.songunet import SongUNet

    with torch.device("meta"):
        network = SongUNet(
            img_resolution=32, in_channels=3, out_channels=3, model_channels=128,
            channel_mult=[1, 2, 2, 2], num_blocks=4,
        )  # fmt: skip
        lora = LowRank(network=network, rank=4)
    trained = sum(p.numel() for p in lora.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in lora.parameters() if not p.requires_grad)
    assert 0.01 < trained / frozen < 0.03


def test_a_checkpoint_holds_base_and_changes():
    network = LowRank(network=unet(), rank=2, label_dim=3)
    for name, p in network.named_parameters():
        if name.endswith(".0.b"):
            nn.init.normal_(p, std=0.1)
    again = LowRank(network=unet(model_channels=16), rank=2, label_dim=3)
    assert not torch.equal(evaluated(again), evaluated(network))
    again.load_state_dict(network.state_dict())
    assert torch.equal(evaluated(again), evaluated(network))
    assert torch.equal(evaluated(copy.deepcopy(network)), evaluated(network))


def test_takes_the_weights_of_the_plain_network():
    torch.manual_seed(5)
    source = unet()
    with torch.no_grad():
        for p in source.parameters():
            p.mul_(1.5)
    network = LowRank(network=unet(), rank=2, label_dim=3)
    network.load_base(source.state_dict())
    assert torch.equal(evaluated(network), evaluated(source))


def test_weights_of_another_network_are_refused():
    network = LowRank(network=unet(), rank=2, label_dim=3)
    with pytest.raises(UsageError, match=r"another network; .* is only in one"):
        network.load_base(MLP(in_channels=1, out_channels=1, hidden=8, depth=1).state_dict())
    with pytest.raises(UsageError, match=r"another network; .* is \(96,\), here it is \(64,\)"):
        network.load_base(unet(model_channels=24).state_dict())
    with pytest.raises(UsageError, match="another network"):
        network.load_base(network.state_dict())


@pytest.mark.parametrize("kind", ["mlp", "dit"])
def test_other_networks(kind):
    torch.manual_seed(0)
    if kind == "mlp":
        plain = MLP(in_channels=2, out_channels=2, hidden=16, depth=1)
        arguments = (torch.randn(3, 2), torch.rand(3))
    else:
        plain = DiT(
            img_resolution=8, in_channels=1, out_channels=1, hidden_size=16, depth=1, num_heads=2
        )
        arguments = (torch.randn(3, 1, 8, 8), torch.rand(3))
    plain.eval()
    before = plain(*arguments)
    assert torch.equal(LowRank(network=plain, rank=1)(*arguments), before)


def test_attributes_are_those_of_the_network():
    network = LowRank(network=unet(), rank=1, label_dim=3)
    assert network.img_resolution == 8
    with pytest.raises(AttributeError):
        _ = network.nothing


@pytest.mark.parametrize(
    ("options", "told"), [({"rank": 0}, "rank is 0"), ({"label_dim": 0}, "network's is 3")]
)
def test_impossible_values_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        LowRank(**{"network": unet(), "label_dim": 3} | options)
