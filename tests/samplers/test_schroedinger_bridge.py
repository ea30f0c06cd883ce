"""The Schroedinger bridge of two Gaussians: pairs, both regressions, and both diffusions.

Data N(m0, s0^2) at t = 0 and a source N(m1, s1^2) at t = 1, with diffusion s: the pairs have the
covariance ``C = (sqrt(4 s0^2 s1^2 + s^4) - s^2) / 2``, and the marginal at t the mean
``(1-t) m0 + t m1`` and the variance ``P = (1-t)^2 s0^2 + t^2 s1^2 + 2 t (1-t) C + s^2 t (1-t)``.

Source: Bunne et al., The Schroedinger Bridge between Gaussian Measures, 2023, arXiv 2202.05722.
"""

import math

import pytest
import torch
from torch import nn

from flowexp.couplings import EntropicOT, Pairs
from flowexp.errors import UsageError
from flowexp.models import FlowModel, Model
from flowexp.objectives import FlowAndScoreMatching, SquaredL2, weightings
from flowexp.parameterizations import FlowAndScore, VelocityPrediction
from flowexp.parameterizations.flow_and_score import FromFlowAndScore
from flowexp.paths import BrownianNoise, Linear, Path, Prediction, Source
from flowexp.samplers import TowardsSource, Uniform, diffusions, sde
from flowexp.samplers.sde import EulerMaruyama
from flowexp.seeding import SampleNoise, generator
from tests.objectives.models import TinyNetwork

SCALE, M0, S0, M1, S1 = 0.8, 1.0, 0.5, -0.5, 1.2
C = 0.5 * (math.sqrt(4.0 * S0**2 * S1**2 + SCALE**4) - SCALE**2)
COUNT = 20_000
F64 = torch.float64


def mean(t):
    return (1.0 - t) * M0 + t * M1


def variance(t):
    u = 1.0 - t
    return u**2 * S0**2 + t**2 * S1**2 + t * u * (2.0 * C + SCALE**2)


def slope(t):
    """The derivative of the velocity in z, ``P' / (2 P)``."""
    u = 1.0 - t
    d = -2.0 * u * S0**2 + 2.0 * t * S1**2 + (1.0 - 2.0 * t) * (2.0 * C + SCALE**2)
    return 0.5 * d / variance(t)


class Bridge(Model):
    """The exact velocity and score."""

    score_head = True

    def __init__(self, source=None):
        self.path = Path(Linear(), source=source)
        self.time_range = (0.0, 1.0)

    def predict(self, x_t, t, **conditions):
        t = t.to(F64)
        away = x_t - mean(t)
        velocity = (M1 - M0) + slope(t) * away
        head = -0.5 * SCALE**2 * away / variance(t)
        conversion = FromFlowAndScore(self.path.schedule.coefficients(t), SCALE)
        return Prediction(self.path, x_t, torch.cat([velocity, head], dim=1), conversion)


def normal_pairs(n, seed=0):
    """Pairs (x, e) of the bridge, (n, 1)."""
    n0, n1 = torch.randn(2, n, 1, generator=generator(seed, "pairs"), dtype=F64)
    x = M0 + S0 * n0
    e = M1 + C / S0 * n0 + math.sqrt(S1**2 - (C / S0) ** 2) * n1
    return x, e


def euler(steps=100, **others):
    return EulerMaruyama(
        steps=steps,
        time_grid=Uniform(t_end=0.0),
        diffusion=diffusions.Brownian(scale=SCALE),
        **others,
    )


class Normals:
    """Normal draws of one generator."""

    def __init__(self, seed):
        self.rng = generator(seed, "normals")

    def __call__(self, step, like):
        return torch.randn(like.shape, generator=self.rng, dtype=like.dtype)


def states_of(walk, start):
    seen = {}
    found = walk(start, lambda t, x: seen.update({round(float(t), 6): x.flatten()}))
    return seen, found


def assert_marginals(seen):
    """5 standard errors of a mean and of a variance, and 0.01 for 100 steps: false alarm 1e-5."""
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, p = seen[t], variance(t)
        assert abs(x.mean().item() - mean(t)) < 5.0 * math.sqrt(p / COUNT) + 0.01
        assert abs(x.var().item() - p) < 5.0 * p * math.sqrt(2.0 / COUNT) + 0.015


def assert_pairs(x, e):
    """The covariance of the ends, 5 standard errors and 0.01: false alarm 1e-6."""
    found = torch.cov(torch.stack([x, e]))[0, 1].item()
    assert abs(found - C) < 5.0 * math.sqrt((S0**2 * S1**2 + C**2) / COUNT) + 0.01


@pytest.mark.statistical
def test_the_diffusion_to_the_data_is_the_bridge():
    _, e = normal_pairs(COUNT)
    seen, found = states_of(
        lambda e, see: euler().sample(Bridge(), e, noise=Normals(1), on_step=see), e
    )
    assert_marginals(seen)
    assert_pairs(found.x.flatten(), e.flatten())
    assert found.nfe.tolist() == [100] * COUNT


@pytest.mark.statistical
def test_the_diffusion_to_the_source_is_the_same_bridge():
    x, _ = normal_pairs(COUNT)
    walk = TowardsSource(euler())
    seen, found = states_of(
        lambda x, see: walk.sample(Bridge(), x, noise=Normals(2), on_step=see), x
    )
    assert_marginals(seen)
    assert_pairs(x.flatten(), found.x.flatten())
    assert found.nfe.tolist() == [100] * COUNT


@pytest.mark.statistical
def test_pairs_of_the_entropic_plan_are_those_of_the_bridge():
    """reg = 2 s^2; 12 batches of 256, 5 standard errors, and 0.02 for the size of the batch."""
    drawn = []
    for seed in range(12):
        rng = generator(seed, "clouds")
        x = M0 + S0 * torch.randn(256, 1, generator=rng, dtype=F64)
        e = M1 + S1 * torch.randn(256, 1, generator=rng, dtype=F64)
        pairs = EntropicOT(reg=2.0 * SCALE**2, iterations=200).pair(x, e, {}, rng=rng)
        drawn.append(torch.cat([pairs.x, pairs.e], dim=1))
    found = torch.cov(torch.cat(drawn).T)[0, 1].item()
    assert abs(found - C) < 5.0 * math.sqrt((S0**2 * S1**2 + C**2) / (12 * 256)) + 0.02


def objective(**others):
    return FlowAndScoreMatching(
        BrownianNoise(SCALE), weighting=weightings.Uniform(), premetric=SquaredL2(), **others
    )


@pytest.mark.statistical
@pytest.mark.parametrize("time", [0.2, 0.6])
def test_both_heads_regress_onto_the_drifts(time):
    """Least squares in (1, z) on 400,000 pairs; 0.02 is five standard errors or more."""
    x, e = normal_pairs(400_000)
    t = torch.full((len(x),), time, dtype=F64)
    loss = objective()
    point, eps = loss.point(
        Path(Linear()), Pairs(x=x, e=e, conditions={}), t, rng=generator(0, "l")
    )
    z = torch.cat([torch.ones_like(x), point.x_t - mean(time)], dim=1)
    targets = torch.cat([point.velocity, -eps / loss.noise.score_weight(t)[:, None]], dim=1)
    found = torch.linalg.lstsq(z, targets).solution
    expected = [[M1 - M0, 0.0], [slope(time), -0.5 * SCALE**2 / variance(time)]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=F64), rtol=0, atol=0.02)


def test_the_exact_model_has_a_smaller_loss_than_its_neighbours():
    class Shifted(Bridge):
        def __init__(self, flow, score):
            super().__init__()
            self.shift = torch.tensor([[flow, score]], dtype=F64)

        def predict(self, x_t, t, **conditions):
            found = super().predict(x_t, t[:, None])
            moved = found.output + self.shift
            c = self.path.schedule.coefficients(t)
            return Prediction(self.path, x_t, moved, FromFlowAndScore(c, SCALE))

    x, e = normal_pairs(50_000)
    t = torch.rand(len(x), generator=generator(0, "t"), dtype=F64)

    def loss(flow, score):
        pairs = Pairs(x=x, e=e, conditions={})
        found = objective().loss(Shifted(flow, score), pairs, t, rng=generator(0, "l"))
        return found.per_sample.double().mean().item()

    best = loss(0.0, 0.0)
    assert all(loss(a, b) > best for a, b in [(0.2, 0), (-0.2, 0), (0, 0.2), (0, -0.2)])


class TwoHeads(nn.Module):
    """Both outputs of a tiny network are the same; counts its calls."""

    def __init__(self):
        super().__init__()
        self.one = TinyNetwork()
        self.calls = 0

    def forward(self, x, c_noise, **conditions):
        self.calls += 1
        return torch.cat([self.one(x, c_noise)] * 2, dim=1)


def test_one_network_call_gives_both_and_weights_count_once():
    model = FlowModel(
        Path(Linear()), network=TwoHeads(), parameterization=FlowAndScore(scale=SCALE)
    )
    x, e = torch.randn(2, 8, 6, generator=generator(0, "x"))
    t = torch.linspace(0.1, 0.9, 8, dtype=F64)
    plain = objective().loss(model, Pairs(x=x, e=e, conditions={}), t, rng=generator(0, "l"))
    assert model.network.calls == 1
    weight = torch.arange(8.0)
    pairs = Pairs(x=x, e=e, conditions={}, weight=weight)
    found = objective().loss(model, pairs, t, rng=generator(0, "l"))
    torch.testing.assert_close(found.per_sample, weight * plain.per_sample)
    parts = plain.metrics["flow"] + plain.metrics["score"]
    torch.testing.assert_close(parts, plain.per_sample.mean())


class Uniformly(Source):
    is_gaussian = False

    def sample(self, shape, *, rng, dtype=torch.float32):
        return torch.rand(*shape, generator=rng, dtype=dtype)


def test_with_a_score_of_its_own_any_source_will_do():
    e = torch.rand(4, 1, generator=generator(0, "e"), dtype=F64)
    euler().sample(Bridge(Uniformly()), e, noise=SampleNoise(range(4)))
    without = FlowModel(
        Path(Linear(), source=Uniformly()),
        network=TinyNetwork(features=1),
        parameterization=VelocityPrediction(),
    )
    grid = Uniform(t_end=0.1)
    walk = EulerMaruyama(steps=5, time_grid=grid, diffusion=diffusions.Constant())
    with pytest.raises(UsageError, match="Gaussian"):
        walk.sample(without, e, noise=SampleNoise(range(4)))
    with pytest.raises(UsageError, match="Gaussian"):
        TowardsSource(walk).sample(without, e, noise=SampleNoise(range(4)))


def test_the_last_step_is_left_out_on_the_way_to_the_source():
    sampler = EulerMaruyama(
        steps=5,
        time_grid=Uniform(t_end=0.1),
        diffusion=diffusions.Brownian(scale=SCALE),
        last_step=sde.MeanLast(),
    )
    seen, found = states_of(
        lambda x, see: TowardsSource(sampler).sample(Bridge(), x, noise=Normals(0), on_step=see),
        normal_pairs(3)[0],
    )
    assert list(seen) == [0.1, 0.325, 0.55, 0.775, 1.0]
    assert found.nfe.tolist() == [4] * 3


def test_impossible_arguments_are_named():
    with pytest.raises(ValueError, match="scale"):
        FlowAndScore(scale=0.0)
    with pytest.raises(ValueError, match="score_weight"):
        objective(score_weight=-1.0)
    with pytest.raises(ValueError, match="noise"):
        FlowAndScoreMatching(
            BrownianNoise(0.0), weighting=weightings.Uniform(), premetric=SquaredL2()
        )
