"""Averages against their closed forms."""

import math

import pytest
import torch
from torch import nn

from flowexp.timesteps import FixedPoints, SquareRootGrowth
from flowexp.training import ConstantEMA, CurriculumEMA, EMAWeights, HalfLifeEMA, PowerEMA
from flowexp.training.ema import EMA, gamma_of_std


def shares(ema: EMA, *, steps: int, batch: int) -> list[float]:
    """The share of the weights after step i in the final average; the first entry: initial ones."""
    found = [1.0]
    for step in range(steps):
        beta = ema.beta(step * batch, batch)
        found = [share * beta for share in found] + [1.0 - beta]
    return found


def test_a_weight_loses_half_of_its_share_in_a_half_life() -> None:
    law = HalfLifeEMA(half_life_kimg=1.0, ramp_up_ratio=None)
    final = shares(law, steps=64, batch=100)
    assert final[0] == pytest.approx(0.5**6.4)
    assert final[30] / final[40] == pytest.approx(0.5)


def test_the_ramp_forgets_the_initial_weights_and_then_ends() -> None:
    law = HalfLifeEMA(half_life_kimg=1.0, ramp_up_ratio=0.05)
    assert law.beta(0, 100) == 0.0
    assert law.beta(10_000, 100) == pytest.approx(0.5 ** (100 / 500))
    assert law.beta(10_000_000, 100) == pytest.approx(0.5 ** (100 / 1000))
    assert shares(law, steps=10, batch=100)[0] == 0.0


@pytest.mark.parametrize("gamma", [1.0, 6.94, 16.97])
def test_power_shares_grow_as_the_power(gamma: float) -> None:
    final = shares(PowerEMA(gamma=gamma), steps=2000, batch=10)
    assert final[0] == 0.0
    assert sum(final) == pytest.approx(1.0)
    assert math.log(final[2000] / final[1000]) / math.log(2.0) == pytest.approx(gamma, rel=2e-3)


@pytest.mark.parametrize(("std", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_width_and_exponent_of_the_power_profile(std: float, gamma: float) -> None:
    """The pairs that the EDM2 paper states, and the width measured on the profile itself."""
    assert gamma_of_std(std) == pytest.approx(gamma, abs=0.01)
    final = torch.tensor(shares(PowerEMA(std=std), steps=4000, batch=1), dtype=torch.float64)
    times = torch.linspace(0.0, 1.0, 4001, dtype=torch.float64)
    mean = (final * times).sum()
    assert float(((final * (times - mean) ** 2).sum()).sqrt()) == pytest.approx(std, rel=2e-3)


def test_constant_and_its_warmup() -> None:
    assert ConstantEMA(decay=0.999).beta(0, 64) == 0.999
    law = ConstantEMA(decay=0.999, warmup=True)
    assert law.beta(0, 64) == pytest.approx(2 / 11)
    assert law.beta(64 * 89, 64) == pytest.approx(0.91)
    assert law.beta(64 * 10**6, 64) == 0.999


def test_the_average_slows_down_as_the_grid_grows() -> None:
    """Between grids of N and N' levels, ``ln beta`` is proportional to ``1/(N - 1)``."""
    curriculum = SquareRootGrowth(total_kimg=100.0)
    ema = CurriculumEMA(curriculum=curriculum, start=0.9)
    betas = [ema.beta(n, 100) for n in range(0, 100_001, 10_000)]
    assert betas == sorted(betas)
    assert betas[-1] == pytest.approx(0.9 ** (2 / 150))
    fixed = CurriculumEMA(curriculum=FixedPoints(points=18), start=0.9)
    assert fixed.beta(0, 100) == fixed.beta(10**6, 100) == pytest.approx(0.9 ** (18 / 17))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HalfLifeEMA(half_life_kimg=0.0), "half_life_kimg is 0.0"),
        (lambda: HalfLifeEMA(half_life_kimg=1.0, ramp_up_ratio=-1.0), "ramp_up_ratio is -1.0"),
        (lambda: PowerEMA(), "give one of gamma and std"),
        (lambda: PowerEMA(gamma=1.0, std=0.1), "give one of gamma and std"),
        (lambda: PowerEMA(gamma=-2.0), "gamma is -2.0"),
        (lambda: PowerEMA(std=0.5), "std is 0.5"),
        (lambda: CurriculumEMA(curriculum=FixedPoints(), start=1.0), "start"),
        (lambda: ConstantEMA(decay=1.0), "decay is 1.0"),
    ],
)
def test_impossible_numbers_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def started(net: nn.Module, emas: dict[str, EMA]) -> EMAWeights:
    averages = EMAWeights(emas)
    averages.start(net)
    return averages


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def move(net: nn.Module, by: float) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(by)


def test_the_update_is_the_recursion_and_buffers_are_left_alone() -> None:
    net = network()
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    averages = started(net, {"a": ConstantEMA(decay=0.75), "b": ConstantEMA(decay=0.0)})
    move(net, 1.0)
    net[1].running_mean.fill_(7.0)
    averages.update(images_seen_before=0, batch_size=1)
    state = averages.state()
    assert state["a"].keys() == start.keys()
    for name, p in net.named_parameters():
        torch.testing.assert_close(state["a"][name], 0.75 * start[name] + 0.25 * p.detach())
        assert torch.equal(state["b"][name], p.detach())


def test_applied_lends_the_average_and_gives_the_weights_back() -> None:
    net = network()
    averages = started(net, {"a": ConstantEMA(decay=0.5)})
    initial = net[0].weight.detach().clone()
    move(net, 2.0)
    moved = net[0].weight.detach().clone()
    with averages.applied("a"):
        assert torch.equal(net[0].weight, initial)
    assert torch.equal(net[0].weight, moved)
    with pytest.raises(ZeroDivisionError), averages.applied("a"):
        _ = 1 / 0
    assert torch.equal(net[0].weight, moved)


def test_state_and_load_are_inverse() -> None:
    net, other = network(), network()
    emas = {"a": ConstantEMA(decay=0.5), "b": ConstantEMA(decay=0.9)}
    averages, copy = started(net, emas), started(other, emas)
    move(net, 1.0)
    averages.update(images_seen_before=0, batch_size=1)
    copy.load(averages.state())
    for name in emas:
        for key, tensor in averages.state()[name].items():
            assert torch.equal(tensor, copy.state()[name][key])
