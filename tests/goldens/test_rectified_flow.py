"""Rectified flow (Liu et al.) against the authors' code, whose time runs from noise to data.

Their states and times are float32: ``t = 1 - t_src``.
"""

import copy

import numpy as np
import torch
from torch import nn

from flowexp.couplings import Pairs
from flowexp.diagnostics.straightness import straightness
from flowexp.models import FlowModel
from flowexp.objectives import Regression, SquaredL2, weightings
from flowexp.parameterizations.direct import ReversedVelocityPrediction
from flowexp.paths import Linear, Path, Prediction
from flowexp.published import read_score_sde
from flowexp.samplers import DormandPrince, Inversion, LaggedEuler, Uniform
from flowexp.timesteps import Fixed, UniformGrid
from flowexp.timesteps import Uniform as UniformLaw
from flowexp.training import ConstantEMA, EMAWeights
from tests.goldens.harness import dispatch, parametrize
from tests.samplers.closed_forms import MixtureModel

EPS = 1e-3


def load(case):
    with np.load(case, allow_pickle=False) as stored:
        return {key: np.array(stored[key]) for key in stored.files}


def tensor(g, key):
    return torch.from_numpy(g[key])


class SinglePrecision(MixtureModel):
    """The analytic network as the reference calls it: state, time and answer in float32."""

    def predict(self, x_t, t, **conditions):
        seen = 1.0 - (1.0 - t).to(torch.float32).to(torch.float64)
        exact = super().predict(x_t.to(torch.float32).to(torch.float64), seen)
        velocity = exact.velocity.to(torch.float32).to(x_t.dtype)
        return Prediction.of_velocity(self.path, x_t, t, velocity)


def mixture(g, **kwargs):
    mu, s = tensor(g, "mu").flatten(1), tensor(g, "s")
    return SinglePrecision(Path(Linear()), g["w"], mu, s[:, None].expand_as(mu), **kwargs)


def check_euler(case):
    g = load(case)
    eps = float(g["eps"])
    for n in g["Ns"].tolist():
        model = mixture(g)
        sampler = LaggedEuler(steps=n, time_grid=Uniform(), lag=eps)
        samples = sampler.sample(model, tensor(g, "z"))
        torch.testing.assert_close(samples.x, tensor(g, f"euler{n}_out"), rtol=0, atol=2e-5)
        times = torch.stack(model.times)
        torch.testing.assert_close(times, tensor(g, f"euler{n}_t"), rtol=0, atol=1e-6)
        assert samples.nfe.tolist() == [n] * len(samples.x)


def check_rk45(case):
    g = load(case)
    z, eps, tol = tensor(g, "z"), float(g["eps"]), float(g["tol"])
    model = mixture(g)
    published = {"per_sample": False, "start_time": 1.0 - eps}
    samples = DormandPrince(rtol=tol, atol=tol, **published).sample(model, z)
    torch.testing.assert_close(samples.x, tensor(g, "out"), rtol=0, atol=1e-4)
    assert samples.nfe.tolist() == [int(g["nfev"])] * len(z)
    times = torch.stack([t.flatten()[0] for t in model.times])
    # Step sizes follow the estimated error, a good part of which is float32 rounding here.
    torch.testing.assert_close(times, tensor(g, "t_evals"), rtol=0, atol=2e-3)
    pairs = DormandPrince(rtol=1e-5, atol=1e-5, **published)
    out = pairs.sample(mixture(g), z).x
    torch.testing.assert_close(out, tensor(g, "pair_out"), rtol=0, atol=1e-4)
    back = Inversion(pairs).invert(mixture(g), out).x
    torch.testing.assert_close(back, tensor(g, "pair_back"), rtol=0, atol=1e-4)
    online = LaggedEuler(steps=20, time_grid=Uniform(), lag=EPS).sample(mixture(g), z).x
    torch.testing.assert_close(online, tensor(g, "online_euler20_out"), rtol=0, atol=1e-4)


class Affine(nn.Module):
    """``a x_t`` plus the time that the network receives."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(a.clone())

    def forward(self, x, c_noise):
        return self.a * x + c_noise.reshape(-1, *([1] * (x.ndim - 1)))


def check_law_of(schedule, t):
    """The drawn times belong to the law that flowexp trains this schedule with."""
    if schedule == "uniform":
        low, high = UniformLaw(low=0.0, high=1.0 - EPS).support
        assert ((t >= low) & (t <= high + 1e-7)).all()
        return
    laws = {"t0": lambda: Fixed(value=1.0 - EPS), "t1": lambda: Fixed(value=0.0)}
    law = laws.get(schedule, lambda: UniformGrid(points=int(schedule), high=1.0 - EPS))()
    atoms = law.quantile((torch.arange(997, dtype=torch.float64) + 0.5) / 997).unique()
    assert (t[:, None] - atoms).abs().min(dim=1).values.max() < 1e-6


def check_loss(case):
    g = load(case)
    t = tensor(g, "t").to(torch.float64)
    check_law_of(str(g["schedule"]), t)
    x, e = tensor(g, "x"), tensor(g, "e")
    network = Affine(tensor(g, "a"))
    parameterization = ReversedVelocityPrediction(time_scale=1.0)
    model = FlowModel(Path(Linear()), network=network, parameterization=parameterization)
    point = model.path.point(x, e, t)
    torch.testing.assert_close(point.x_t.float(), tensor(g, "x_t"), rtol=1e-5, atol=1e-6)
    objective = Regression("velocity", weighting=weightings.Uniform(), premetric=SquaredL2())
    pairs = Pairs(x=x, e=e, conditions={})
    loss = objective.loss(model, pairs, t, rng=torch.Generator()).per_sample.mean()
    loss.backward()
    torch.testing.assert_close(loss.detach(), tensor(g, "loss_mean"), rtol=1e-5, atol=0)
    half = 0.5 * x[0].numel() * loss.detach()
    torch.testing.assert_close(half, tensor(g, "loss_sum_half"), rtol=1e-5, atol=0)
    torch.testing.assert_close(network.a.grad, tensor(g, "a_grad"), rtol=1e-5, atol=1e-7)


def check_ema(case):
    g = load(case)
    network = nn.ParameterList([nn.Parameter(tensor(g, "p0").clone())])
    average = EMAWeights({"main": ConstantEMA(decay=float(g["decay"]), warmup=True)})
    average.start(network)
    for step, row in enumerate(tensor(g, "params")):
        network[0].data.copy_(row)
        average.update(images_seen_before=128 * step, batch_size=128)
        shadow = copy.deepcopy(average.state()["main"]["0"])
        torch.testing.assert_close(shadow, tensor(g, "shadow")[step], rtol=0, atol=1e-6)


def check_straightness(case):
    g = load(case)
    found = straightness(tensor(g, "traj"))
    torch.testing.assert_close(found, tensor(g, "S_per_sample"), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.mean(), tensor(g, "S_mean"), rtol=0, atol=1e-10)


def check_checkpoint(case):
    g = load(case.with_name(f"{case.stem}_expected.npz"))
    found = read_score_sde(case)
    assert [f"module.{name}" for name in found.trainable] == g["trainable"].tolist()
    for kind, state in {"raw": found.raw, "ema": found.ema}.items():
        expected = {k.removeprefix(f"{kind}/"): v for k, v in g.items() if k.startswith(f"{kind}/")}
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(state[name], torch.from_numpy(value)), f"{kind}/{name}"
    numbers = (found.step, found.decay, found.num_updates)
    assert numbers == (int(g["step"]), float(g["decay"]), int(g["num_updates"]))


CHECKS = {
    "euler_": check_euler,
    "rk45_": check_rk45,
    "loss_": check_loss,
    "ema_": check_ema,
    "straightness_": check_straightness,
    "score_sde_style_": check_checkpoint,
}


@parametrize("rectified-flow")
def test_case(case):
    dispatch(case, CHECKS)
