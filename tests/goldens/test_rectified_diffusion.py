"""Rectified Diffusion (Wang et al.): the authors' schedule, loss and phases; first-order paths."""

import numpy as np
import torch
from torch import nn

from flowexp.couplings import Pairs
from flowexp.models import FlowModel, Model
from flowexp.objectives import (
    ElementwisePseudoHuber,
    PhasedRectification,
    Regression,
    segment_between,
    weightings,
)
from flowexp.parameterizations import NoisePrediction, VelocityPrediction
from flowexp.paths import VE, DiscreteVP, Linear, Path, Prediction, Trigonometric
from flowexp.paths.conversions import FromNoise
from flowexp.samplers import DDIM, Given, Uniform
from tests.goldens.harness import dispatch, parametrize

POWERS = {"linear": 1.0, "scaled_linear": 2.0}


def load(case):
    with np.load(case, allow_pickle=False) as stored:
        return {key: np.array(stored[key]) for key in stored.files}


def tensor(g, key):
    return torch.from_numpy(g[key])


def check_alphas(case):
    g = load(case)
    schedule = DiscreteVP(p=POWERS[case.stem.removeprefix("alphas_")])
    k = tensor(g, "k")
    expected = tensor(g, "alphas_cumprod").double()
    torch.testing.assert_close(schedule.alphas_cumprod[k], expected, rtol=0, atol=1e-6)
    c = schedule.coefficients(schedule.time_of(k))
    torch.testing.assert_close(c.alpha**2, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(c.sigma**2, 1.0 - expected, rtol=0, atol=1e-6)


class KnownOutput(nn.Module):
    """A network whose output is known; it keeps the level that it receives."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x, c_noise):
        self.level = c_noise
        return self.output


class VPPrediction(Model):
    """Diffusion's v-prediction, ``o = alpha e - sigma x``, of a variance-preserving path."""

    def __init__(self, path, output):
        self.path, self.output = path, output
        self.time_range = path.schedule.t_min, path.schedule.t_max

    def predict(self, x_t, t, **conditions):
        c = self.path.schedule.coefficients(t)
        alpha, sigma = (v.reshape(-1, 1, 1, 1) for v in (c.alpha, c.sigma))
        return Prediction.of_data(self.path, x_t, t, alpha * x_t - sigma * self.output)


def check_target(case):
    g = load(case)
    path = Path(DiscreteVP(p=POWERS[str(g["beta_schedule"])]))
    t, output = path.schedule.time_of(tensor(g, "k")), tensor(g, "model_output")
    if str(g["prediction_type"]) == "epsilon":
        network = KnownOutput(output)
        head = NoisePrediction(time_scale=1000.0)
        model = FlowModel(path, network=network, parameterization=head)
    else:
        assert str(g["prediction_type"]) == "v_prediction"
        model = VPPrediction(path, output)
    pairs = Pairs(x=tensor(g, "x"), e=tensor(g, "e"), conditions={})
    point = path.point(pairs.x, pairs.e, t)
    torch.testing.assert_close(point.x_t.float(), tensor(g, "x_t"), rtol=0, atol=1e-5)
    c = path.schedule.coefficients(t)
    torch.testing.assert_close(c.alpha.float(), tensor(g, "alpha"), rtol=0, atol=1e-6)
    torch.testing.assert_close(c.sigma.float(), tensor(g, "sigma"), rtol=0, atol=1e-6)
    data = model.denoise(tensor(g, "x_t"), t)
    torch.testing.assert_close(data.float(), tensor(g, "pred_x"), rtol=2e-4, atol=2e-4)
    if str(g["prediction_type"]) == "epsilon":
        torch.testing.assert_close(network.level, tensor(g, "k").float(), rtol=0, atol=1e-3)
    objective = Regression(
        "data",
        weighting=weightings.Uniform(),
        premetric=ElementwisePseudoHuber(c=float(g["huber_c"])),
    )
    loss = objective.loss(model, pairs, t, rng=torch.Generator()).per_sample.mean()
    torch.testing.assert_close(loss, tensor(g, "loss").float(), rtol=1e-4, atol=1e-4)


class Between(Model):
    """A teacher whose predictions are of no interest; it knows its path and range."""

    def __init__(self, path):
        self.path, self.time_range = path, (path.schedule.t_min, path.schedule.t_max)

    def predict(self, x_t, t, **conditions):
        raise NotImplementedError


class KnownNoise(Model):
    """Predicts a given noise and keeps the states at which it is evaluated."""

    def __init__(self, path, noise):
        self.path, self.noise, self.time_range = path, noise, (0.0, 1.0)

    def predict(self, x_t, t, **conditions):
        self.received = x_t
        c = self.path.schedule.coefficients(t)
        self.prediction = Prediction(self.path, x_t, self.noise.to(x_t.dtype), FromNoise(c))
        return self.prediction


def check_phased(case):
    g = load(case)
    path = Path(DiscreteVP(p=POWERS[str(g["beta_schedule"])]))
    schedule = path.schedule
    substeps = len(g["ddim_timesteps"])
    t, before = (tensor(g, f"ddim_timesteps{end}") for end in ("", "_prev"))
    grid = Uniform(t_end=schedule.t_min).times(Between(path), substeps)
    trailing = torch.arange(substeps, 0, -1) / substeps
    torch.testing.assert_close(schedule.time_of(t).flip(0), trailing.double())
    assert schedule.time_of(before).min() == schedule.t_min == grid[-1]
    cumprod = schedule.alphas_cumprod[before]
    expected = tensor(g, "ddim_alphas_cumprod_prev")
    torch.testing.assert_close(cumprod, expected, rtol=0, atol=1e-6)
    start, end, at = (schedule.time_of(tensor(g, f"{n}_k")) for n in ("start", "end", "sampled"))
    objective = PhasedRectification(
        teacher=Between(path),
        segments=len(np.unique(g["start_k"])),
        premetric=ElementwisePseudoHuber(),
    )
    for found, wanted in zip(objective.boundaries(at), (start, end), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    x_start, x_end = tensor(g, "x_start").double(), tensor(g, "x_end").double()
    at_start, at_end = schedule.coefficients(start), schedule.coefficients(end)
    for name, c in (("start", at_start), ("end", at_end), ("sampled", schedule.coefficients(at))):
        stored = tensor(g, f"alphas_cumprod_{name}").double()
        torch.testing.assert_close(c.alpha**2, stored, rtol=0, atol=1e-6)
    segment = segment_between(x_start, at_start, x_end, at_end)
    noise = tensor(g, "segment_noise").double()
    torch.testing.assert_close(segment.noise, noise, rtol=1e-4, atol=1e-4)
    student = KnownNoise(path, tensor(g, "model_eps"))
    missed = []
    objective.premetric = lambda difference: missed.append(difference) or difference.sum()
    objective.deviation(student, (x_start, start), (x_end, end), t=at, conditions={})
    torch.testing.assert_close(student.received.float(), tensor(g, "x_sampled"), rtol=0, atol=1e-4)
    landed = (missed[0] + x_end).float()
    torch.testing.assert_close(landed, tensor(g, "x_end_pred"), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x_end.float(), tensor(g, "target"), rtol=0, atol=1e-6)


PATHS = {"vp_cos": Trigonometric(), "linear": Linear(), "ve": VE(t_min=1e-9, t_max=1e4)}


class Oracle(Model):
    """Knows the noise of its pairs: the model of a first-order ODE."""

    def __init__(self, path, e, head):
        self.path, self.e, self.head = path, e, head
        self.time_range = (path.schedule.t_min, path.schedule.t_max)

    def predict(self, x_t, t, **conditions):
        c = self.path.schedule.coefficients(t.to(torch.float64))
        if isinstance(self.head, NoisePrediction):
            return Prediction(self.path, x_t, self.e, FromNoise(c))
        a = {k: getattr(c, k).reshape(-1, *[1] * (x_t.ndim - 1)) for k in vars(c)}
        x = (x_t - a["sigma"] * self.e) / a["alpha"]
        velocity = a["d_alpha"] * x + a["d_sigma"] * self.e
        return Prediction(self.path, x_t, velocity, self.head.conversion(c))


def check_first_order(case):
    g = load(case)
    path = Path(PATHS[str(g["path"])])
    x, e, t, s = (tensor(g, key) for key in ("x", "e", "t", "s"))
    torch.testing.assert_close(path.point(x, e, t).x_t, tensor(g, "x_t"), rtol=0, atol=1e-10)
    torch.testing.assert_close(path.point(x, e, s).x_t, tensor(g, "x_s"), rtol=0, atol=1e-10)
    for head in (NoisePrediction(), VelocityPrediction()):
        for i in range(len(x)):
            row = slice(i, i + 1)
            oracle = Oracle(path, e[row], head)
            grid = Given(values=[float(t[i]), float(s[i])])
            # the sampler starts from sigma(t) times what it is given
            start = tensor(g, "x_t")[row] / path.schedule.coefficients(t[row]).sigma
            found = DDIM(steps=1, time_grid=grid).sample(oracle, start).x
            torch.testing.assert_close(found, tensor(g, "x_s")[row], rtol=0, atol=1e-10)


CHECKS = {
    "alphas_": check_alphas,
    "target_": check_target,
    "phased_": check_phased,
    "first_order_": check_first_order,
}


@parametrize("rectified-diffusion")
def test_case(case):
    dispatch(case, CHECKS)
