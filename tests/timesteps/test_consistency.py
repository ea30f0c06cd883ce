"""Times of consistency models: the shrinking ratio, the grid of noise levels, its curriculum.

The statistical tests have a fixed seed and fail at p < 1e-3: a correct law fails for one seed in a
thousand.
"""

import math

import pytest
import torch
from scipy import stats

from flowexp.paths import VE, Linear, Path
from flowexp.seeding import generator
from flowexp.timesteps import (
    Doubling,
    FixedPoints,
    Halving,
    LogitNormal,
    LogNormal,
    NoiseGrid,
    ShrinkingRatio,
    SquareRootGrowth,
    Uniform,
)
from tests.refusals import refusal_of

F64 = torch.float64
ECT = ShrinkingRatio(LogNormal(P_mean=-1.1, P_std=2.0), stage_kimg=3200.0)


def values(law, *levels):
    return law.middle(torch.tensor(levels, dtype=F64)).tolist()


def test_ratio_of_the_published_recipe():
    """r = 0 up to ln 7 in the first stage; q = 2, eight stages are q = 256, one stage."""
    assert values(ECT, math.log(7.0) - 1e-9, math.log(7.0) + 1e-9)[0] == 0.0
    assert values(ECT, math.log(7.0) + 1e-6)[0] > 0.0
    assert values(ECT, 20.0, 80.0) == pytest.approx([10.0, 40.0], rel=1e-6)
    assert values(ECT.at(3_200_000), 1.0) == pytest.approx([0.2121], abs=1e-4)
    assert values(ECT.at(6_400_000), 0.5, 1.0) == pytest.approx([0.2487, 0.6061], abs=1e-4)
    hour = ShrinkingRatio(LogNormal(), stage_kimg=1.0, q=256.0)
    assert ECT.at(7 * 3_200_000).ratio == hour.ratio == 1.0 - 2.0**-8


def test_stages_begin_at_whole_multiples_of_their_length():
    images = (0, 3_199_999, 3_200_000, 9_600_001)
    assert [ECT.at(n).stage for n in images] == [0, 0, 1, 3]
    assert ECT.stage == 0


def test_the_ratio_is_defined_by_noise_levels_on_every_path():
    u = torch.rand(100, 1, dtype=F64, generator=generator(0, "u"))
    law = ECT.at(6_400_000)
    level, _, middle = law.quantile(u, schedule=VE()).unbind(1)
    t, r, s = law.quantile(u, schedule=Linear()).unbind(1)
    torch.testing.assert_close(Linear().nsr(t), level)
    torch.testing.assert_close(Linear().nsr(s), middle, rtol=1e-9, atol=1e-12)
    assert r.tolist() == [0.0] * 100
    for schedule in (Linear(), VE()):
        assert refusal_of(law, path=Path(schedule)) is None


def test_limit_and_floor():
    law = ShrinkingRatio(LogNormal(), stage_kimg=1.0, ratio_limit=0.999, floor=1e-6).at(10**7)
    assert law.ratio == 0.999
    assert values(ShrinkingRatio(LogNormal(), stage_kimg=1.0, floor=1e-6), 0.1, 1e-6, 1e-7) == [
        1e-6, 0.0, 0.0,
    ]  # fmt: skip


def test_a_law_of_t_has_noise_levels_too():
    law = ShrinkingRatio(Uniform(), stage_kimg=1.0)
    times = law.sample(1000, schedule=Linear(), rng=generator(0, "time"))
    assert times.isfinite().all()
    assert "timestep@timestep.law=lognormal" in refusal_of(law, path=Path(VE()))


def test_neighbours_on_the_grid():
    law = NoiseGrid(curriculum=FixedPoints(points=18))
    times = law.sample(2000, schedule=VE(), rng=generator(0, "time"))
    grid = law.noise_levels()
    assert grid[0].item() == pytest.approx(0.002)
    assert grid[-1].item() == pytest.approx(80.0)
    i = torch.searchsorted(grid, times[:, 0].contiguous())
    assert torch.equal(grid[i - 1], times[:, 2])
    assert sorted(set(i.tolist())) == list(range(1, 18))


@pytest.mark.statistical
def test_pairs_have_the_probability_of_their_interval():
    law = NoiseGrid(curriculum=FixedPoints(points=11), weights=LogNormal(P_mean=-1.1, P_std=2.0))
    u = torch.rand(50_000, dtype=F64, generator=generator(0, "u"))
    counts = torch.bincount(law.index(u), minlength=10)
    expected = 50_000 * law.probabilities()
    assert expected.sum().item() == pytest.approx(50_000)
    assert stats.chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3
    ends = torch.tensor([2.0**-54, 1.0 - 2.0**-53], dtype=F64)
    assert law.index(ends).tolist() == [0, 9]


def test_weights_are_laws_of_noise_levels():
    law = NoiseGrid(curriculum=FixedPoints(), weights=LogitNormal())
    assert refusal_of(law, path=Path(VE())).startswith(".weights: LogitNormal is a law of t")


def test_the_grid_grows_with_the_training():
    law = NoiseGrid(curriculum=SquareRootGrowth(total_kimg=1000.0))
    points = [len(law.at(n).noise_levels()) for n in range(0, 1_000_001, 50_000)]
    assert points[0] == 2
    assert points[-1] == 151
    assert points == sorted(points)
    assert len(law.noise_levels()) == 2


def test_doubling_reaches_its_end_and_stays():
    law = Doubling(total_kimg=800.0)
    stage = 100_000
    assert [law.points(k * stage) for k in range(10)] == [
        11, 21, 41, 81, 161, 321, 641, 1281, 1281, 1281,
    ]  # fmt: skip
    assert law.points(stage - 1) == 11


def test_steps_are_halved_and_the_stage_of_two_is_twice_as_long():
    curriculum = Halving(start=16, stage_kimg=1.0)
    steps = [curriculum.points(images) - 1 for images in range(500, 8500, 1000)]
    assert steps == [16, 8, 4, 2, 2, 1, 1, 1]
    with pytest.raises(ValueError, match="start is 1; expected at least 2"):
        Halving(start=1, stage_kimg=1.0)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: ShrinkingRatio(LogNormal(), stage_kimg=0.0), "stage_kimg"),
        (lambda: ShrinkingRatio(LogNormal(), stage_kimg=1.0, q=1.0), "q is"),
        (lambda: ShrinkingRatio(LogNormal(), stage_kimg=1.0, k=-1.0), "k="),
        (lambda: ShrinkingRatio(LogNormal(), stage_kimg=1.0, ratio_limit=1.1), "ratio_limit"),
        (lambda: ShrinkingRatio(LogNormal(), stage_kimg=1.0, floor=-1.0), "floor"),
        (lambda: NoiseGrid(curriculum=FixedPoints(), sigma_min=0.0), "sigma_min"),
        (lambda: NoiseGrid(curriculum=FixedPoints(), rho=0.0), "rho"),
        (lambda: FixedPoints(points=1), "points"),
        (lambda: SquareRootGrowth(total_kimg=1.0, start=3, end=2), "start"),
        (lambda: Doubling(total_kimg=0.0), "total_kimg"),
    ],
)
def test_impossible_arguments_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()
