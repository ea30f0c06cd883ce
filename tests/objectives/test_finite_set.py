"""The mean of a finite data set behind a state, and the ODE that it drives."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from flowexp.objectives import finite_set_mean
from flowexp.paths import VE, Gaussian, Path, StudentT
from flowexp.samplers import EDMGrid, EDMHeun
from flowexp.seeding import generator
from tests.samplers.closed_forms import DenoiserModel, finite_set_denoiser


def normal(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("D", [1.0, 3.5, 2048.0])
def test_weights_are_the_student_t_density(D):
    y, x, level = normal(7, 4), normal(5, 4, seed=1), torch.linspace(0.3, 2.0, 5).double()
    mean = finite_set_mean(x, level, reference=y, D=D)
    for i in range(5):
        law = stats.multivariate_t(shape=float(level[i]) ** 2 * np.eye(4), df=D)
        w = torch.from_numpy(law.pdf((x[i] - y).numpy()))
        torch.testing.assert_close(mean[i], (w / w.sum()) @ y, rtol=1e-9, atol=1e-12)


def test_large_dof_is_the_gaussian_kernel():
    y, x, level = normal(7, 4), normal(5, 4, seed=1), torch.full((5,), 0.5).double()
    gaussian = finite_set_mean(x, level, reference=y, D=math.inf)
    torch.testing.assert_close(
        finite_set_mean(x, level, reference=y, D=1e7), gaussian, rtol=0, atol=1e-4
    )


def test_groups_count_alone():
    y, x, level = normal(6, 3), normal(2, 3, seed=1), torch.ones(2).double()
    marks = torch.tensor([0, 0, 1, 1, 1, 2])
    found = finite_set_mean(x, level, reference=y, D=4.0, groups=(torch.tensor([1, 2]), marks))
    expected = finite_set_mean(x[:1], level[:1], reference=y[2:5], D=4.0)
    torch.testing.assert_close(found[:1], expected)
    torch.testing.assert_close(found[1], y[5])


@pytest.mark.parametrize("D", [1.0, 8.0, 2048.0, math.inf])
def test_sampler_ends_on_the_data_and_the_denoiser_on_the_nearest(D):
    points = 0.5 * normal(6, 3, 4, 4)
    path = Path(VE(), D=D)
    model = DenoiserModel(path, finite_set_denoiser(points, D=D))
    e = path.source.prior((16, 3, 4, 4), rng=generator(0, "latents"), dtype=torch.float64)
    x = EDMHeun(steps=18, time_grid=EDMGrid()).sample(model, e).x
    distance = torch.cdist(x.flatten(1), points.flatten(1))
    assert float(distance.min(1).values.max()) < 1e-6
    near = points + 1e-3 * normal(6, 3, 4, 4, seed=2)
    level = torch.full((6,), 0.002, dtype=torch.float64)
    mean = finite_set_mean(near, level, reference=points, D=D)
    torch.testing.assert_close(mean, points, rtol=0, atol=1e-6)


def share_of_the_middle(source):
    points = torch.tensor([[-1.0], [0.2], [1.0]], dtype=torch.float64)
    model = DenoiserModel(Path(VE(), D=1.0), finite_set_denoiser(points, D=1.0))
    e = source.prior((3000, 1), rng=generator(0, "latents"), dtype=torch.float64)
    x = EDMHeun(steps=40, time_grid=EDMGrid()).sample(model, e).x
    return float(((x - 0.2).abs() < 0.1).double().mean())


@pytest.mark.statistical
def test_only_the_right_latents_give_the_data_frequencies():
    """In one dimension quantiles are kept: the middle third of t_1 is |e| < tan(pi/6).

    Four standard errors: false alarm 6e-5.
    """
    error = 4 * math.sqrt(2.0 / 9.0 / 3000)
    assert abs(share_of_the_middle(StudentT(1.0)) - 1 / 3) < error
    wrong = 2 * stats.norm.cdf(math.tan(math.pi / 6)) - 1
    assert abs(share_of_the_middle(Gaussian()) - wrong) < error
    assert wrong - 1 / 3 > 2 * error
