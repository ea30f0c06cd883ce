"""Laws whose times are shifted; their densities and draws are in test_distributions."""

import math

import pytest
import torch

from flowexp import samplers
from flowexp.config.check import check, check_job
from flowexp.config.instantiate import instantiate
from flowexp.paths import VE, VP, Linear, Path, ScaledNoise
from flowexp.paths.time_shift import dimension_shift, shifted
from flowexp.requirements import Parts
from flowexp.seeding import generator
from flowexp.timesteps import (
    DimensionShifted,
    Fixed,
    LogitNormal,
    LogNormal,
    Shifted,
    Sorted,
    ToData,
    Uniform,
)
from tests.samplers.closed_forms import DenoiserModel

F64 = torch.float64
U = torch.tensor([1e-9, 0.01, 0.2, 0.5, 0.8, 0.99, 1 - 1e-9], dtype=F64)
LAWS = [Uniform(), LogitNormal(mean=-0.4, std=1.2), LogNormal()]
RAE = dimension_shift(channels=768, resolution=16, base=4096)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_no_shift_is_the_law_itself(law):
    same = Shifted(law, shift=1.0)
    value = law.quantile(U)
    torch.testing.assert_close(same.quantile(U), value, rtol=1e-15, atol=0)
    torch.testing.assert_close(same.pdf(value), law.pdf(value), rtol=1e-15, atol=0)
    assert same.support == law.support


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_two_shifts_are_one_by_their_product(law):
    twice, once = Shifted(Shifted(law, shift=3.0), shift=0.4), Shifted(law, shift=1.2)
    value = once.quantile(U)
    torch.testing.assert_close(twice.quantile(U), value, rtol=1e-13, atol=0)
    torch.testing.assert_close(twice.cdf(value), U, rtol=1e-7, atol=1e-15)
    torch.testing.assert_close(twice.pdf(value), once.pdf(value), rtol=1e-10, atol=0)


@pytest.mark.parametrize("schedule", [Linear(), ScaledNoise(of=Linear(), noise=0.5)], ids=repr)
def test_the_noise_level_of_linear_paths_is_multiplied(schedule):
    u = U[1:-1]
    before, after = LogitNormal().quantile(u), Shifted(LogitNormal(), shift=RAE).quantile(u)
    torch.testing.assert_close(
        schedule.log_snr(after), schedule.log_snr(before) - 2.0 * math.log(RAE)
    )


@pytest.mark.parametrize("schedule", [Linear(), VP(), VE()], ids=repr)
def test_a_law_of_noise_levels_is_multiplied_on_every_path(schedule):
    law, moved = LogNormal(), LogNormal(P_mean=-1.2 + math.log(2.5))
    draws = Shifted(law, shift=2.5).sample(16, schedule=schedule, rng=generator(0, "time"))
    expected = moved.sample(16, schedule=schedule, rng=generator(0, "time"))
    torch.testing.assert_close(draws, expected, rtol=1e-12, atol=0)


def test_the_logit_normal_law_is_moved_by_the_logarithm():
    moved = LogitNormal(mean=math.log(RAE))
    torch.testing.assert_close(Shifted(LogitNormal(), shift=RAE).quantile(U), moved.quantile(U))


def test_shift_of_the_dimension():
    """1 for the latents that need none, 6.928 for the representations of RAE; small ones below."""
    assert dimension_shift(channels=4, resolution=32, base=4096) == 1.0
    assert pytest.approx(6.928, abs=5e-4) == RAE
    assert dimension_shift(channels=3, resolution=32, base=4096) == pytest.approx(0.75**0.5)
    law = DimensionShifted(Uniform(), channels=768, resolution=16)
    torch.testing.assert_close(law.quantile(U), shifted(U, RAE), rtol=0, atol=0)


def test_the_grid_of_a_dimension_is_shifted_as_the_law():
    size = {"channels": 768, "resolution": 16}
    law, grid = DimensionShifted(Uniform(), **size), samplers.DimensionShifted(**size)
    times = grid.times(DenoiserModel(Path(Linear()), None), 10)
    u = torch.linspace(1.0, 0.0, 11, dtype=F64)
    torch.testing.assert_close(times, law.quantile(u), rtol=1e-15, atol=0)
    assert grid.identity() == f"DimensionShifted(shift={RAE}, t_end=0.0)"


@pytest.mark.parametrize("dataset", ["digits", "cifar10"])
def test_options_take_the_size_of_a_sample_from_the_data_set(dataset):
    given = [f"dataset={dataset}", "timestep=dimension_shifted", "path=linear", "sampler=euler",
             "sampler/time_grid=dimension_shifted"]  # fmt: skip
    config = check_job("train", given).config
    size = config["dataset"]["channels"] * config["dataset"]["resolution"] ** 2
    law = instantiate(config["timestep"], key="timestep")
    grid = instantiate(config["sampler"]["time_grid"], key="sampler.time_grid")
    assert law.shift == grid.shift == math.sqrt(size / 4096)


def test_only_times_in_the_unit_interval_are_mapped():
    (unmet,) = Shifted(Uniform(low=0.002, high=80.0)).needs(Parts(path=Path(VE())))
    assert unmet.key == ".law"
    assert "lognormal" in unmet.remedy
    assert list(Shifted(LogNormal()).needs(Parts(path=Path(VE())))) == []
    assert list(Shifted(Uniform()).needs(Parts(path=Path(Linear())))) == []


def test_the_config_check_refuses_laws_that_do_not_fit():
    on_ve = ["path=edm", "timestep=shifted", "timestep@timestep.law=uniform"]
    found = check("train", on_ve).problems
    assert {p.key for p in found} == {"timestep.law"}
    fixed = check("train", ["path=edm", "timestep=shifted", "timestep@timestep.law=lognormal"])
    assert fixed.problems == []
    (several,) = check(
        "train", ["path=linear", "timestep=shifted", "timestep@timestep.law=sorted"]
    ).problems
    assert "several times" in several.text


def test_it_is_a_law_of_other_laws():
    """Flow maps draw t and r from it; a law that draws its end says so through it."""
    pairs = Sorted(Shifted(LogitNormal(), shift=RAE), diagonal=0.0)
    t, r = pairs.sample(8, schedule=Linear(), rng=generator(0, "time")).unbind(1)
    assert (t >= r).all()
    low = Sorted(LogitNormal(), diagonal=0.0).sample(8, schedule=Linear(), rng=generator(0, "time"))
    torch.testing.assert_close(t, shifted(low[:, 0], RAE))
    assert Shifted(Fixed(value=0.5)).drawn_end == "law.value"
    assert Shifted(LogitNormal()).drawn_end is None
    assert ToData(Shifted(LogNormal())).columns == ("t", "r")
    assert Shifted(Fixed(value=0.5), shift=3.0).quantile(U).unique().tolist() == [0.75]


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: Shifted(Uniform(), shift=0.0), "shift is 0"),
        (lambda: Shifted(Uniform(), shift=math.inf), "shift is inf"),
        (lambda: DimensionShifted(Uniform(), channels=0, resolution=8), "channels is 0"),
        (lambda: DimensionShifted(Uniform(), channels=3, resolution=8, base=0.0), "base is 0"),
        (lambda: samplers.DimensionShifted(channels=3, resolution=0), "resolution 0"),
    ],
)
def test_impossible_arguments_are_named(build, named):
    with pytest.raises(ValueError, match=named):
        build()
