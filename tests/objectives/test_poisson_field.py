"""PFGM's field: against the sum over charges, the denoiser's relation, and its points' law."""

from unittest import mock

import pytest
import torch
from scipy import stats
from torch import nn

from flowexp.couplings import Pairs
from flowexp.models import FlowModel
from flowexp.objectives import PoissonField, SquaredL2, finite_set_mean
from flowexp.objectives.poisson_field import FieldPoints
from flowexp.objectives.weightings import Uniform
from flowexp.parameterizations import PoissonFieldPrediction, VelocityPrediction
from flowexp.paths import VE, Linear, Path
from flowexp.seeding import generator
from tests.objectives.models import tiny_model
from tests.samplers.closed_forms import DenoiserModel, finite_set_denoiser


def normal(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def field(**options):
    return PoissonField(weighting=Uniform(), premetric=SquaredL2(), **options)


def some_points():
    return FieldPoints(3 * normal(5, 2, 2, seed=1), torch.linspace(0.1, 7.0, 5).double())


def coulomb(points, y):
    """``sum_j (x - y_j, z) / (|x - y_j|^2 + z^2)^((N + 1)/2)``: the field of charges, D = 1."""
    gap = points.x.flatten(1)[:, None] - y.flatten(1)[None]
    z = points.level[:, None, None].expand(*gap.shape[:2], 1)
    vector = torch.cat([gap, z], dim=2)
    return (vector / vector.norm(dim=2, keepdim=True) ** (gap.shape[2] + 1)).sum(1)


def test_target_points_against_the_field_of_the_charges():
    points, y = some_points(), normal(7, 2, 2)
    along_x, along_z = field(gamma=0.0).target(points, reference=y, D=1.0)
    found = torch.cat([along_x.flatten(1), along_z[:, None]], dim=1)
    charged = coulomb(points, y)
    torch.testing.assert_close(found, -2.0 * charged / charged.norm(dim=1, keepdim=True))


def test_ratio_of_the_field_is_the_noise_of_the_denoiser():
    """``E_x / E_r = (x - D) / r``."""
    points, y = some_points(), normal(7, 2, 2)
    charged = coulomb(points, y)
    mean = finite_set_mean(points.x, points.level, reference=y, D=1.0)
    expected = (points.x - mean).flatten(1) / points.level[:, None]
    torch.testing.assert_close(charged[:, :-1] / charged[:, -1:], expected)
    along_x, along_z = field(gamma=5.0).target(points, reference=y, D=1.0)
    torch.testing.assert_close(along_x.flatten(1) / along_z[:, None], expected)


def batch(path, count=6):
    x = 0.5 * normal(count, 1, 2, 2)
    e = path.source.sample(x.shape, rng=generator(0, "source"), dtype=torch.float64)
    return Pairs(x, e, {}), torch.full((count,), 0.5, dtype=torch.float64)


def loss(objective, model, pairs, t):
    return objective.loss(model, pairs, t, rng=generator(0, "objective")).per_sample


@pytest.mark.parametrize("path", [Path(VE(), D=1), Path(Linear(), D=1), Path(VE(), D=64)])
def test_ideal_model_of_the_batch_has_no_loss(path):
    pairs, t = batch(path)
    ideal = DenoiserModel(path, finite_set_denoiser(pairs.x, D=path.D))
    assert float(loss(field(), ideal, pairs, t).max()) < 1e-12
    other = DenoiserModel(path, finite_set_denoiser(pairs.x[:3], D=path.D))
    assert float(loss(field(), other, pairs, t).max()) > 1e-4


def test_charges_of_another_label_do_not_count():
    path = Path(VE(), D=1)
    pairs, t = batch(path)
    labelled = Pairs(pairs.x, pairs.e, {"labels": torch.tensor([0, 0, 0, 1, 1, 1])})
    ideal = DenoiserModel(path, finite_set_denoiser(pairs.x[:3], D=1.0))
    found = loss(field(), ideal, labelled, t)
    assert float(found[:3].max()) < 1e-12
    assert float(found[3:].max()) > 1e-4


class FieldNetwork(nn.Module):
    """The exact normalised field of a set of charges with one channel for z."""

    def __init__(self, charges, gamma):
        super().__init__()
        self.charges, self.gamma = charges, gamma

    def forward(self, x, c_noise, **conditions):
        level = torch.exp(4.0 * c_noise.double())
        state = x.double() * torch.sqrt(1.0 + level**2).reshape(-1, 1, 1, 1)
        target = field(gamma=self.gamma).target(
            FieldPoints(state, level), reference=self.charges, D=1.0
        )
        z = target[1].reshape(-1, 1, 1, 1).expand_as(state[:, :1])
        return torch.cat([target[0], z], dim=1)


def test_network_of_one_more_channel_is_compared_directly():
    path = Path(VE(), D=1)
    pairs, t = batch(path)
    parameterization = PoissonFieldPrediction(gamma=5.0)
    exact = FlowModel(path, network=FieldNetwork(pairs.x, 5.0), parameterization=parameterization)
    # float32 inputs of the network limit the agreement
    assert float(loss(field(), exact, pairs, t).max()) < 1e-4
    other = FlowModel(path, network=FieldNetwork(pairs.x, 1.0), parameterization=parameterization)
    assert float(loss(field(), other, pairs, t).max()) > 1e-2


@pytest.mark.statistical
@pytest.mark.parametrize("restrict_M", [True, False])
def test_points_have_the_ratio_of_radius_and_level_of_pfgm(restrict_M):
    """R/z = chi_N / |N(0, 1)| at every growth; Kolmogorov-Smirnov, false alarm 1e-3 per case."""
    objective = field(restrict_M=restrict_M)
    points = objective._draw(torch.zeros(20_000, 3), generator(0, "objective"))
    ratio = (points.x.norm(dim=1) / points.level).square() / 3
    assert stats.kstest(ratio.numpy(), stats.f(3, 1).cdf).pvalue > 1e-3


def test_small_levels_grow_less():
    """With m at the top of its range: level <= 0.005 (1.03)^203 or >= 0.005 (1.03)^291."""
    with mock.patch.object(torch, "rand", return_value=torch.ones(2000, 2, dtype=torch.float64)):
        level = field()._draw(torch.zeros(2000, 3), generator(0, "objective")).level
    low, high = 0.005 * 1.03**203, 0.005 * 1.03**291
    assert not ((level > low) & (level < high)).any()
    assert 0.25 < float((level <= low).double().mean()) < 0.5


def test_only_the_trained_rows_are_asked_for():
    path = Path(VE(), D=1)
    pairs, t = batch(path)
    model = tiny_model(path, VelocityPrediction())
    model.network.first.data = model.network.first.data[:5]
    model.network.second.data = model.network.second.data[:, :4]
    found = loss(field(trained=2), model, pairs, t)
    assert found.shape == (6,)
    assert (found[:2] > 0).all()
    assert found[2:].tolist() == [0.0] * 4


@pytest.mark.parametrize(
    "bad", [{"M": 0.0}, {"tau": -0.1}, {"sigma_end": 0.0}, {"gamma": -1.0}, {"trained": 0}]
)
def test_bad_arguments_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        field(**bad)
