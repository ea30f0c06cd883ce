"""MeanFlow goldens: targets, losses and gradients, and SplitMeanFlow's target."""

import torch

from flowexp.models import Model
from flowexp.objectives import FlowMapMatching, SumOfSquares
from flowexp.objectives.flow_map import (
    JVP,
    Adaptive,
    DataVelocity,
    OwnStep,
    RandomShare,
    Tangent,
    TeacherVelocity,
)
from flowexp.paths import Linear, Path, Prediction
from tests.goldens.flow_maps_network import GoldenFlowMap, load, tensor
from tests.goldens.flow_maps_selfdistill import close as _close
from tests.goldens.flow_maps_selfdistill import leap_of, rows_of
from tests.objectives.flow_map.exact import GaussianMap


def close(found, expected):
    _close(found, expected, rtol=1e-8, atol=1e-10)


class FlatNetwork(Model):
    """u of flattened images, conditioned on t and h = t - r."""

    is_flow_map = True
    time_range = (0.0, 1.0)

    def __init__(self, g):
        self.path = Path(Linear())
        self.g = {name: tensor(g, name).clone() for name in g}
        self.trained = {n[2:]: p.requires_grad_() for n, p in self.g.items() if n[:2] == "p_"}

    def flat(self, zf, t, h):
        raise NotImplementedError

    def average_velocity(self, x_t, t, r, **conditions):
        return self.flat(x_t.flatten(1), t[:, None], (t - r)[:, None]).reshape(x_t.shape)

    def predict(self, x_t, t, **conditions):
        velocity = self.average_velocity(x_t, t, t)
        return Prediction.of_velocity(self.path, x_t, t, velocity)


class Analytic(FlatNetwork):
    """``gain tanh(z W^T + b t)(1 + t^2/2) + c sin(2h) + 0.3 h z``."""

    def flat(self, zf, t, h):
        g = self.g
        wave = torch.tanh(zf @ g["W"].T + g["b"] * t) * (1.0 + t**2 / 2.0)
        return g["p_gain"] * wave + g["c"] * torch.sin(2.0 * h) + 0.3 * h * zf


class Perceptron(FlatNetwork):
    """``fc2(silu(fc1([z, t, h])))``."""

    def flat(self, zf, t, h):
        g, linear = self.g, torch.nn.functional.linear
        entered = linear(torch.cat([zf, t, h], dim=1), g["p_fc1.weight"], g["p_fc1.bias"])
        hidden = torch.nn.functional.silu(entered)
        return linear(hidden, g["p_fc2.weight"], g["p_fc2.bias"])


def _check_target(case, network):
    """Prediction, derivative, target, loss, and the gradient of every parameter."""
    g = load(case)
    model = network(g)
    objective = FlowMapMatching(
        driver=DataVelocity(),
        leg=Tangent(),
        premetric=SumOfSquares(factor=1.0),
        error_weight=Adaptive(p=float(g["norm_p"]), c=float(g["norm_c"])),
    )
    leap, *_ = leap_of(objective, model, g)
    close(leap.x_t, tensor(g, "z"))
    close(leap.velocity, tensor(g, "v"))
    comparison, difference, rows = rows_of(objective, model, leap)
    close(comparison.prediction, tensor(g, "u"))
    close(comparison.target, tensor(g, "u_target"))
    assert not comparison.target.requires_grad
    one, zero = torch.ones_like(leap.t), torch.zeros_like(leap.t)
    at, along = (leap.x_t, leap.t, leap.r), (leap.velocity, one, zero)
    close(JVP().along(model.average_velocity, at, along)[1], tensor(g, "dudt"))
    close(objective.premetric(difference), tensor(g, "per_sample_sqerr"))
    close(rows.mean(), tensor(g, "loss"))
    gradients = torch.autograd.grad(rows.mean(), list(model.trained.values()))
    for name, gradient in zip(model.trained, gradients, strict=True):
        close(gradient, tensor(g, f"g_{name}"))


def check_target_analytic(case):
    _check_target(case, Analytic)


def check_target_mlp(case):
    _check_target(case, Perceptron)


def _with_pairs(g):
    """Data and noise whose states at t are the z_t of the case."""
    g = dict(g)
    g["x"], g["e"] = 0.0 * g["z_t"], g["z_t"] / g["t"][:, None]
    return g


def _split(model, g):
    """SplitMeanFlow's comparison at the given states and shares."""
    objective = FlowMapMatching(
        driver=OwnStep(), leg=RandomShare(), premetric=SumOfSquares(factor=1.0)
    )
    leap, *_ = leap_of(objective, model, _with_pairs(g), uniforms=tensor(g, "lam")[:, None])
    close(leap.x_t, tensor(g, "z_t"))
    close(objective.leg.end(leap), tensor(g, "s"))
    return leap, rows_of(objective, model, leap)[0]


def check_splitmeanflow_target(case):
    """Both steps, the state in between, the target and the prediction."""
    g = load(case)
    model = GoldenFlowMap(g)
    leap, comparison = _split(model, g)
    s = tensor(g, "s")
    u2 = OwnStep().velocity(model, leap, s)
    close(u2, tensor(g, "u2"))
    close(model.flow_map(leap.x_t, leap.t, s), tensor(g, "z_s"))
    close(model.average_velocity(tensor(g, "z_s"), s, leap.r), tensor(g, "u1"))
    close(comparison.target, tensor(g, "target"))
    close(comparison.prediction, tensor(g, "pred"))


def check_gaussian_exact_average_velocity(case):
    """The exact u, MeanFlow's identity and SplitMeanFlow's, and no loss with the exact velocity."""
    g = load(case)
    model = GaussianMap(Path(Linear()), mean=tensor(g, "data_mean"), std=tensor(g, "data_std"))
    z_t, r, s, t = (tensor(g, name) for name in ("z_t", "r", "s", "t"))
    z_s = model.flow_map(z_t, t, s)
    close(z_s, tensor(g, "z_s"))
    close(model.velocity(z_t, t), tensor(g, "v_t"))
    close(model.average_velocity(z_t, t, r), tensor(g, "u_r_t"))
    close(model.average_velocity(z_t, t, s), tensor(g, "u_s_t"))
    close(model.average_velocity(z_s, s, r), tensor(g, "u_r_s"))
    _, comparison = _split(model, g)
    close(comparison.target, tensor(g, "isc_target"))
    close(comparison.target, tensor(g, "u_r_t"))
    meanflow = FlowMapMatching(
        driver=TeacherVelocity(teacher=model), leg=Tangent(), premetric=SumOfSquares(factor=1.0)
    )
    leap, *_ = leap_of(meanflow, model, _with_pairs(g))
    comparison, difference, _ = rows_of(meanflow, model, leap)
    close((tensor(g, "v_t") - comparison.target) / (t - r)[:, None], tensor(g, "dudt"))
    assert float(difference.abs().max()) < 1e-8


CHECKS = {
    "gaussian_exact_average_velocity": check_gaussian_exact_average_velocity,
    "splitmeanflow_target": check_splitmeanflow_target,
    "target_analytic": check_target_analytic,
    "target_mlp": check_target_mlp,
}
