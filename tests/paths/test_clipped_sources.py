"""Sources with the authors' clips: where they change the law, and where they must not."""

import math

import pytest
import torch
from scipy import stats

from flowexp.paths import (
    VE,
    ClippedStudentT,
    Gaussian,
    Path,
    RadiusClippedStudentT,
    StudentT,
    beta_radius,
)
from flowexp.seeding import generator

N = 3072
DRAWS = 4000


def norms(source, draw="sample", shape=(DRAWS, N)):
    e = getattr(source, draw)(shape, rng=generator(0, "source"), dtype=torch.float32)
    return e.double().flatten(1).norm(dim=1)


def radius(beta, D):
    wide = torch.tensor(beta, dtype=torch.float64)
    return float(beta_radius(wide, D=D, low=0.0, high=1.0))


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("D", "percent"), [(1, 92.0), (2, 78.0), (4, 45.0), (8, 7.0), (128, 0.0), (2048, 0.0)]
)
def test_share_of_clipped_draws_at_the_high_end(D, percent):
    """Within four standard errors of the Beta law's tail: false alarm 6e-5 per case."""
    found = float((norms(ClippedStudentT(D)) > radius(0.999, D) * (1 - 1e-5)).double().mean())
    exact = float(stats.beta(N / 2, D / 2).sf(0.999))
    assert abs(100 * exact - percent) < 0.6
    assert abs(found - exact) <= 4 * math.sqrt(exact * (1 - exact) / DRAWS)


@pytest.mark.statistical
def test_share_of_clipped_draws_at_the_low_end():
    D = 3_072_000
    found = float((norms(ClippedStudentT(D)) < radius(0.001, D) * (1 + 1e-5)).double().mean())
    assert abs(found - float(stats.beta(N / 2, D / 2).cdf(0.001))) <= 4 * 0.5 / math.sqrt(DRAWS)
    assert abs(found - 0.52) < 0.04


@pytest.mark.statistical
@pytest.mark.parametrize("D", [3.0, 64.0])
def test_without_clip_it_is_the_student_t_law(D):
    """Kolmogorov-Smirnov on 20,000 draws: false alarm 1e-3 per case."""
    source = ClippedStudentT(D, low=0.0, high=1.0)
    squares = norms(source, shape=(20_000, 48)).square() / 48
    assert stats.kstest(squares.numpy(), stats.f(48, D).cdf).pvalue > 1e-3
    e = source.sample((20_000, 5), rng=generator(1, "source"), dtype=torch.float64)
    assert stats.kstest(e[:, 2].numpy(), stats.t(D).cdf).pvalue > 1e-3


def test_default_law_is_not_clipped():
    share = float((norms(Path(VE(), D=1).source) > radius(0.999, 1) * 1.01).double().mean())
    assert share > 0.85


@pytest.mark.parametrize("D", [1.0, 128.0])
def test_sampling_starts_from_the_unclipped_law(D):
    drawn = ClippedStudentT(D).prior((6, 3, 4, 4), rng=generator(0, "latents"))
    assert torch.equal(drawn, StudentT(D).sample((6, 3, 4, 4), rng=generator(0, "latents")))


@pytest.mark.parametrize("source", [Gaussian(), StudentT(3.0)])
def test_other_sources_start_from_the_law_they_train_on(source):
    first = source.prior((2, 3), rng=generator(0, "latents"))
    assert torch.equal(first, source.sample((2, 3), rng=generator(0, "latents")))


@pytest.mark.parametrize(
    "source",
    [
        ClippedStudentT(math.inf),
        RadiusClippedStudentT(math.inf, scale=40.0, smallest=1.0, largest=2.0),
    ],
)
def test_infinite_dof_is_gaussian_bit_for_bit(source):
    gaussian = Gaussian().sample((5, 4), rng=generator(0, "source"))
    assert torch.equal(source.sample((5, 4), rng=generator(0, "source")), gaussian)
    assert torch.equal(source.prior((5, 4), rng=generator(0, "source")), gaussian)
    assert source.is_gaussian


def test_radius_clip_bounds_the_start_and_keeps_directions():
    source = RadiusClippedStudentT(1.0, scale=40.0, smallest=1.0, largest=3000.0)
    path = Path(VE(t_min=1e-3, t_max=40.0), D=1, source=source)
    e = path.source.prior((500, N), rng=generator(0, "latents"), dtype=torch.float64)
    start = path.start(e, torch.tensor(40.0, dtype=torch.float64)).norm(dim=1)
    assert float(start.max()) == pytest.approx(3000.0, rel=1e-12)
    exact = StudentT(1.0).sample((500, N), rng=generator(0, "latents"), dtype=torch.float64)
    cosine = (e * exact).sum(1) / e.norm(dim=1) / exact.norm(dim=1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=1e-12, atol=0.0)
    inside = exact.norm(dim=1) < 75.0
    torch.testing.assert_close(e[inside], exact[inside], rtol=1e-12, atol=0.0)
    assert torch.equal(source.sample((3, 4), rng=generator(0, "source")),
                       StudentT(1.0).sample((3, 4), rng=generator(0, "source")))  # fmt: skip


def test_path_takes_a_variant_of_the_same_dof_only():
    assert Path(VE(), D=64, source=ClippedStudentT(64)).D == 64.0
    with pytest.raises(ValueError, match="same D"):
        Path(VE(), D=64, source=ClippedStudentT(65))


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.5), (0.5, 0.5), (0.1, 1.1), (math.nan, 1.0)])
def test_impossible_clip_is_refused(low, high):
    with pytest.raises(ValueError, match="low="):
        ClippedStudentT(3, low=low, high=high)


def test_impossible_radii_are_refused():
    with pytest.raises(ValueError, match="largest"):
        RadiusClippedStudentT(1, scale=40.0, smallest=2.0, largest=1.0)
