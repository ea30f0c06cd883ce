"""One dropout mask for all passes of a step."""

import torch

from flowexp.models import FlowModel
from flowexp.networks.unet import UNet
from flowexp.objectives.flow_map import SameDropout
from flowexp.parameterizations import DDIMJump, EDMPreconditioning, FlowMap
from flowexp.paths import VE, Path


def model(*, label_dropout=0.0):
    torch.manual_seed(0)
    network = UNet(
        in_channels=1, out_channels=1, img_resolution=8, model_channels=4, dropout=0.5,
        label_dim=3, label_dropout=label_dropout,
    )  # fmt: skip
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    rule = FlowMap(of=EDMPreconditioning(), jump=DDIMJump(), conditions_on=[])
    return FlowModel(Path(VE()), network=network, parameterization=rule)


def evaluated(wrapped, *, t):
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0])
    return wrapped.flow_map(x, t, torch.zeros_like(t), labels=labels)


def test_both_passes_at_one_time_agree_bit_for_bit():
    t = torch.tensor([0.1, 0.5, 2.0, 40.0], dtype=torch.float64)
    same = SameDropout(model(label_dropout=0.5))
    torch.manual_seed(3)
    first = evaluated(same, t=t)
    with torch.no_grad():
        second = evaluated(same, t=t)
    assert torch.equal(first, second)
    free = model()
    assert not torch.equal(evaluated(free, t=t), evaluated(free, t=t))


def test_a_new_batch_has_a_new_mask():
    t = torch.full((4,), 2.0, dtype=torch.float64)
    plain = model()
    assert not torch.equal(evaluated(SameDropout(plain), t=t), evaluated(SameDropout(plain), t=t))


def test_an_average_of_the_weights_drops_the_same_units():
    t = torch.full((4,), 2.0, dtype=torch.float64)
    live = model()
    live.averages = {"main": model()}
    same = SameDropout(live)
    assert torch.equal(evaluated(same, t=t), evaluated(same.average("main"), t=t))
