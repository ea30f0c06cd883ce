"""``network=diffusers_unet`` against a stand-in with UNet2DModel's interface."""

import sys
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch
from torch import nn

from flowexp.errors import UsageError
from flowexp.networks.diffusers_unet import DiffusersUNet

SIZES = {"img_resolution": 10, "in_channels": 3, "out_channels": 3}


class StandIn(nn.Module):
    """What UNet2DModel takes and gives; the embedding of the classes is added to all pixels."""

    def __init__(self, **options):
        super().__init__()
        self.options = options
        self.conv = nn.Conv2d(options["in_channels"], options["out_channels"], 1)

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        assert sample.shape[-1] % 2 ** (len(self.options["block_out_channels"]) - 1) == 0
        assert (class_labels is None) == (self.options["class_embed_type"] is None)
        assert not return_dict
        out = self.conv(sample) * timestep[:, None, None, None]
        if class_labels is not None:
            assert class_labels.shape == (len(sample), 4 * self.options["block_out_channels"][0])
            out = out + class_labels.mean(1)[:, None, None, None]
        return (out,)


@pytest.fixture
def stand_in(monkeypatch):
    module = ModuleType("diffusers")
    module.UNet2DModel = StandIn
    monkeypatch.setitem(sys.modules, "diffusers", module)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("augment_dim", [0, 2])
@pytest.mark.parametrize("label_dim", [0, 4])
def test_images_of_any_size_with_and_without_conditions(label_dim, augment_dim):
    torch.manual_seed(0)
    network = DiffusersUNet(**SIZES, label_dim=label_dim, augment_dim=augment_dim)
    x, c_noise = torch.randn(2, 3, 10, 10), torch.tensor([0.5, -1.0])
    plain = network(x, c_noise)
    assert plain.shape == x.shape
    if label_dim:
        labels = torch.tensor([2, -1])
        changed = (network(x, c_noise, labels) - plain).flatten(1).abs().amax(1) > 1e-6
        assert changed.tolist() == [True, False]
    if augment_dim:
        assert not torch.equal(network(x, c_noise, None, torch.ones(2, augment_dim)), plain)


def test_without_diffusers_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UsageError) as caught:
        DiffusersUNet(**SIZES)
    assert str(caught.value) == (
        "network=diffusers_unet needs the package diffusers: pip install 'flowexp[diffusers]'"
    )


@pytest.mark.skipif(find_spec("diffusers") is None, reason="diffusers is not installed")
def test_the_real_one():
    network = DiffusersUNet(
        **SIZES, label_dim=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    x = torch.randn(2, 3, 10, 10)
    assert network(x, torch.tensor([0.5, -1.0]), torch.tensor([1, -1])).shape == x.shape
