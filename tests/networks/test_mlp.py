"""The network for points."""

import pytest
import torch

from flowexp.networks import MLP


def test_images_are_refused():
    network = MLP(in_channels=2, out_channels=2, hidden=8, depth=1)
    with pytest.raises(ValueError, match=r"allowed: \(B, 2\)"):
        network(torch.zeros(3, 2, 4, 4), torch.zeros(3))


@pytest.mark.parametrize("options", [{"hidden": 0}, {"depth": 0}])
def test_bad_arguments_name_themselves(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        MLP(in_channels=2, out_channels=2, **options)


def test_it_learns_a_function_of_point_noise_and_label():
    # y = label-dependent rotation of x, scaled by the noise level: needs all three inputs.
    torch.manual_seed(0)
    network = MLP(in_channels=2, out_channels=2, label_dim=2, hidden=64, depth=2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    x, c, labels = torch.randn(256, 2), torch.rand(256) * 2 - 1, torch.arange(256) % 2
    turned = torch.stack([x, torch.stack([-x[:, 1], x[:, 0]], 1)])[labels, torch.arange(256)]
    y = turned * c[:, None]
    for _ in range(200):
        loss = (network(x, c, labels) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02 * y.square().mean()
