"""Laws of several times: what belongs together, their marginal laws, and what they refuse.

Each Kolmogorov-Smirnov test takes 50,000 draws with a fixed seed and fails at p < 1e-3: a correct
law fails for one seed in a thousand.
"""

import re

import pytest
import torch
from scipy import stats

from flowexp.objectives.flow_map import OwnStep
from flowexp.paths import VE, Linear, Path, Trigonometric
from flowexp.seeding import generator
from flowexp.timesteps import (
    Capped,
    Dyadic,
    FixedPoints,
    GapAndEnd,
    LogitNormal,
    LogNormal,
    Mode,
    NoiseGrid,
    ParticleTimes,
    ShrinkingRatio,
    Sorted,
    StartAndBelow,
    Stratified,
    ToData,
    Uniform,
)
from tests.refusals import refusal_of

F64 = torch.float64
START, END = LogitNormal(mean=-0.6, std=1.6), LogitNormal(mean=-4.0, std=1.6)
LAWS = {
    "sorted": Sorted(Uniform(), diagonal=0.25),
    "sorted_levels": Sorted(LogNormal()),
    "capped": Capped(start=START, end=END, diagonal=0.25),
    "capped_gap": Capped(start=START, end=END, min_gap=1e-4),
    "below": StartAndBelow(start=LogitNormal(), end=LogNormal(P_mean=-2.0)),
    "gap_and_end": GapAndEnd(gap=LogitNormal(mean=-0.8), end=LogitNormal(mean=-0.4)),
    "to_data": ToData(LogNormal()),
    "dyadic": Dyadic(),
    "ratio": ShrinkingRatio(LogNormal(P_mean=-1.1, P_std=2.0), stage_kimg=1.0),
    "grid": NoiseGrid(curriculum=FixedPoints(points=18)),
    "particles": ParticleTimes(),
}
every_law = pytest.mark.parametrize("name", LAWS)


def draws_of(law, n, *, schedule=None, seed=0):
    return law.sample(n, schedule=schedule or Linear(), rng=generator(seed, "time"))


def ks(values, cdf):
    return stats.kstest(
        values.numpy(), lambda v: cdf(torch.as_tensor(v)).clamp(0.0, 1.0).numpy()
    ).pvalue


@every_law
def test_times_are_ordered_and_on_the_path(name):
    times = draws_of(LAWS[name], 1000)
    columns = dict(zip(LAWS[name].columns, times.unbind(1), strict=True))
    assert times.dtype == F64
    assert times.shape == (1000, len(LAWS[name].columns))
    assert ((times >= 0.0) & (times <= 1.0)).all()
    assert (columns["r"] <= columns["t"]).all()
    assert LAWS[name].ends_early == bool((columns["r"] > 0.0).any())
    if "s" in columns:
        assert (columns["r"] <= columns["s"]).all()
        assert (columns["s"] < columns["t"]).all()


@every_law
def test_draws_are_a_function_of_the_generator(name):
    first, again, other = (draws_of(LAWS[name], 64, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_both_times_of_a_law_of_noise_levels_follow_it_on_every_path():
    law, u = Sorted(LogNormal()), torch.rand(50, 2, dtype=F64, generator=generator(0, "u"))
    linear, round_one = (law.quantile(u, schedule=s) for s in (Linear(), Trigonometric()))
    torch.testing.assert_close(Linear().nsr(linear), Trigonometric().nsr(round_one))


@pytest.mark.statistical
def test_marginal_laws():
    n = 50_000
    t, r = draws_of(Sorted(Uniform()), n).unbind(1)
    assert ks(t, lambda v: v**2) > 1e-3
    assert ks(r, lambda v: 1.0 - (1.0 - v) ** 2) > 1e-3
    t, r = draws_of(Capped(start=START, end=END), n).unbind(1)
    assert ks(t, START.cdf) > 1e-3
    assert ks(r, lambda v: 1.0 - (1.0 - START.cdf(v)) * (1.0 - END.cdf(v))) > 1e-3
    law = LAWS["below"]
    t, r = draws_of(law, n).unbind(1)
    assert ks(t, law.start.cdf) > 1e-3
    share = law.end.cdf(Linear().nsr(r)) / law.end.cdf(Linear().nsr(t))
    assert ks(share, lambda v: v) > 1e-3
    law = LAWS["gap_and_end"]
    t, r, other = draws_of(law, n).unbind(1)
    assert ks(t - r, law.gap.cdf) > 1e-3
    assert ks(other, law.end.cdf) > 1e-3
    law = LAWS["particles"]
    t, r, _ = draws_of(law, n)[:: law.particles].unbind(1)
    assert ks(t, Uniform(low=law.low, high=law.high).cdf) > 1e-3
    assert ks((r - law.low) / (t - law.low), lambda v: v) > 1e-3


@pytest.mark.parametrize("share", [0.0, 0.3, 0.75, 1.0])
def test_the_diagonal_is_an_exact_share_in_every_part_of_a_batch(share):
    equal = draws_of(Sorted(Uniform(), diagonal=share), 40).diff(dim=1).flatten() == 0.0
    assert int(equal.sum()) == round(40 * share)
    assert abs(int(equal[:20].sum()) - 20 * share) < 1.0


def test_a_cap_with_a_gap_keeps_r_at_the_data_at_least():
    law = Capped(start=Uniform(), end=Uniform(), min_gap=0.2)
    t, r = draws_of(law, 500).unbind(1)
    assert r.min() == 0.0
    assert (t[r > 0] - r[r > 0]).min() > 0.2 - 1e-12


@pytest.mark.parametrize(
    ("law", "n", "counts"),
    [
        (Dyadic(), 64, [2, 1, 1, 1, 1, 1, 1, 56]),
        (Dyadic(steps=16, bootstrap=0.25), 48, [3, 3, 3, 3, 36]),
        (Dyadic(steps=16, bootstrap=0.5, favour_long=True), 64, [16, 8, 4, 4, 32]),
        (Dyadic(), 7, [0, 0, 0, 0, 0, 0, 0, 7]),
    ],
)
def test_shortcut_steps_have_the_published_counts(law, n, counts):
    j = law.exponents(n)
    assert torch.bincount(j, minlength=law.steps.bit_length()).tolist() == counts


def test_shortcut_steps_lie_on_their_grid():
    law = Dyadic()
    t, r = draws_of(law, 512).unbind(1)
    step = 2.0 ** -law.exponents(512).double()
    assert torch.equal(t - r, step)
    assert torch.equal((t / step).round(), t / step)
    assert t.max() == 1.0
    assert r.min() == 0.0


def test_particles_share_their_times():
    t = draws_of(ParticleTimes(particles=4), 22)
    assert torch.equal(t[0:4], t[0:1].expand(4, 3))
    assert torch.equal(t[20], t[21])
    assert not torch.equal(t[0], t[4])


def test_particles_step_by_equal_noise_levels_unless_that_is_too_little():
    law = ParticleTimes()
    t, r, s = draws_of(law, 4000).unbind(1)
    nsr = Linear().nsr
    step = (nsr(torch.tensor(law.high)) - nsr(torch.tensor(law.low))) / 2.0**law.k
    free = (s > r) & (s < t - 1.01 * law.min_gap)
    assert free.sum() > 500
    torch.testing.assert_close((nsr(t) - nsr(s))[free], step.double().expand(int(free.sum())))
    near = (s > r) & ~free
    assert (t - s)[near].min() > 0.99 * law.min_gap


@pytest.mark.parametrize("law", [Sorted(Mode()), ToData(Mode())], ids=["sorted", "to_data"])
def test_the_remedy_changes_the_inner_law(law):
    refusal = refusal_of(law, path=Path(VE()))
    assert refusal.startswith(".law: Mode draws t in (0, 1)")
    assert "Use timestep@timestep.law=lognormal" in refusal


@pytest.mark.parametrize(
    "law",
    [
        Stratified(LAWS["sorted"]),
        ToData(LAWS["dyadic"]),
        ShrinkingRatio(LAWS["sorted"], stage_kimg=1.0),
    ],
)
def test_an_inner_law_is_one_of_one_time(law):
    refusal = refusal_of(law, path=Path(Linear()))
    assert refusal.startswith(".law: ")
    assert "draws several times" in refusal


@pytest.mark.parametrize("name", ["sorted_levels", "sorted", "dyadic"])
def test_own_drivers_need_rows_anchored_to_the_data(name):
    refusal = refusal_of(OwnStep(), timestep=LAWS[name])
    assert (refusal is None) == (name != "sorted_levels")
    if refusal is not None:
        assert "Set timestep.diagonal=0.5" in refusal


def test_laws_without_an_inner_one_ask_for_another_path():
    for law in (Dyadic(), ParticleTimes(), GapAndEnd(gap=START, end=END)):
        refusal = refusal_of(law, path=Path(VE()))
        assert re.search(r"VE path.*0\.002 to 80\. Use a path with time in \[0, 1\]\.$", refusal)
        assert refusal_of(law, path=Path(Linear())) is None


def test_particles_need_a_finite_noise_level():
    assert "timestep.high=0.994" in refusal_of(ParticleTimes(high=1.0), path=Path(Linear()))


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: Sorted(Uniform(), diagonal=1.5), "diagonal"),
        (lambda: Capped(start=START, end=END, min_gap=-1.0), "min_gap"),
        (lambda: Dyadic(steps=100), "steps"),
        (lambda: Dyadic(bootstrap=-0.1), "bootstrap"),
        (lambda: ParticleTimes(particles=0), "particles"),
        (lambda: ParticleTimes(low=0.5, high=0.5), "low"),
        (lambda: ParticleTimes(k=0.0), "k is"),
    ],
)
def test_impossible_arguments_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()
