"""Consistency models: losses, scalings and sampling against the authors' codes (ECT, TCM, CM).

iCT and the Gaussian case have no code: they are the published formulas, evaluated independently.
"""

import json

import numpy as np
import torch
from torch import nn

from flowexp.broadcast import expand_as
from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives import (
    L1,
    L2,
    FlowMapMatching,
    PseudoHuber,
    SquaredL2,
    SumOfSquares,
    weightings,
)
from flowexp.objectives.flow_map import (
    BoundaryRows,
    DataChord,
    EMATarget,
    EndPoint,
    GivenMiddle,
    InverseGap,
    Legs,
    TeacherStep,
    TruncatedTarget,
    UniformLeaps,
)
from flowexp.parameterizations import (
    ConsistencyPreconditioning,
    DDIMJump,
    EDMPreconditioning,
    FlowMap,
)
from flowexp.paths import VE, Path, Prediction
from flowexp.paths.ve import edm_sigmas
from flowexp.samplers import FlowMapSampler, Given

PARAMETERS = ("W", "b", "c")


def load(case):
    with np.load(case, allow_pickle=False) as stored:
        return {key: np.array(stored[key]) for key in stored.files}


def tensor(g, key):
    return torch.from_numpy(g[key])


def same(found, g, key, *, rtol=1e-9, atol=1e-11):
    torch.testing.assert_close(
        found, tensor(g, key), rtol=rtol, atol=atol, msg=lambda m: f"{key}: {m}"
    )


class Perceptron(nn.Module):
    """The stand-in ``1.3 tanh(x W^T + b c_noise) + 0.2 c`` of the goldens, in float64."""

    def __init__(self, g, suffix=""):
        super().__init__()
        for name in PARAMETERS:
            self.register_parameter(name, nn.Parameter(tensor(g, name + suffix).clone()))
        self.seen = []

    def forward(self, x, c_noise):
        self.seen.append(x)
        return 1.3 * torch.tanh(x @ self.W.T + self.b * c_noise[:, None]) + 0.2 * self.c


class Exact(Model):
    """A flow map of a network in float64; it keeps the states at which it is evaluated."""

    is_flow_map = True
    maps_to_data_only = True
    time_range = (1e-9, 1e6)

    def __init__(self, network, of):
        self.path = Path(VE(t_min=1e-9, t_max=1e6))
        self.network = network
        self.rule = FlowMap(of=of, jump=DDIMJump(), conditions_on=[])
        self.averages = {}
        self.received = []

    def predict(self, x_t, t, **conditions):
        output, conversion = self._output(x_t, t)
        return Prediction(self.path, x_t, output, conversion)

    def average_velocity(self, x_t, t, r, **conditions):
        output, conversion = self._output(x_t, t)
        u = self.rule.jump.average_velocity(conversion, self.path.schedule, t, r)
        return u(x_t, output)

    def average(self, name):
        return self.averages[name]

    def gradients(self, loss):
        found = torch.autograd.grad(loss, [getattr(self.network, name) for name in PARAMETERS])
        return {f"g_{name}": value for name, value in zip(PARAMETERS, found, strict=True)}

    def _output(self, x_t, t):
        self.received.append(x_t)
        c = self.path.schedule.coefficients(t)
        inputs = self.rule.inputs(self.path.schedule, t, c)
        conversion = self.rule.conversion_in(c, training=self.network.training)
        c_noise = inputs.c_noise.expand(len(x_t))
        return self.network(expand_as(inputs.c_in, x_t) * x_t, c_noise), conversion


def rows(g, objective, model, *, s="r"):
    """The leap of a case's rows, which all go to r = 0."""
    t, middle = tensor(g, "t"), tensor(g, s)
    pairs = Pairs(tensor(g, "x"), tensor(g, "e"), {})
    rng = torch.Generator().manual_seed(0)
    times = torch.stack([t, torch.zeros_like(t), middle], dim=1)
    return objective.leap(model, pairs, times, rng=rng)


def matching(**parts):
    parts = {"driver": DataChord(), "leg": GivenMiddle(), "regressed": EndPoint()} | parts
    return FlowMapMatching(**parts)


def ends(objective, model, leap):
    """Where both ways end: D_t and D_r."""
    legs = Legs(objective.driver, objective.target, objective.diagonal)
    found = objective.leg.compare(model, leap, legs)
    t = leap.t[:, None]
    return leap.x_t - t * found.prediction, leap.x_t - t * found.target


def root_or_huber(c):
    return PseudoHuber(c=c, mean=False) if c > 0.0 else L2(mean=False)


def check_ect_loss(case):
    g = load(case)
    n, t = tensor(g, "rnd_normal"), tensor(g, "t")
    same(torch.exp(float(g["P_std"]) * n + float(g["P_mean"])), g, "t")
    decay = float(g["q"]) ** -(int(g["stage"]) + 1.0)
    step = decay * (1.0 + float(g["k"]) * torch.sigmoid(-float(g["b_adj"]) * t))
    same((t * (1.0 - step)).clamp(min=0.0), g, "r")
    sigma_data = float(g["sigma_data"])
    imagenet = str(g["variant"]) == "imgnet"
    objective = matching(
        premetric=root_or_huber(float(g["c_huber"])),
        weighting=weightings.EDM(sigma_data=sigma_data) if imagenet else None,
        leap_weight=None if imagenet else InverseGap(),
    )
    model = Exact(Perceptron(g), ConsistencyPreconditioning(sigma_data=sigma_data))
    leap = rows(g, objective, model)
    for found, key in zip(ends(objective, model, leap), ("D_t", "D_r"), strict=True):
        same(found, g, key)
    loss, _ = objective.losses(model, leap)
    same(loss, g, "row_loss")
    same(loss.mean(), g, "loss")
    for key, gradient in model.gradients(loss.mean()).items():
        same(gradient, g, key)


class KnownOutput(nn.Module):
    """A network with a given output; it remembers its inputs."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x, c_noise):
        self.x, self.c_noise = x, c_noise
        return self.output


def check_precond(case):
    g = load(case)
    network = KnownOutput(tensor(g, "F"))
    sigma_data, sigma_min = float(g["sigma_data"]), float(g["sigma_min"])
    rule = ConsistencyPreconditioning(sigma_data=sigma_data, sigma_min=sigma_min)
    model = Exact(network, rule)
    x, sigma = tensor(g, "x"), tensor(g, "sigma")
    for training, key in ((True, "D_train"), (False, "D_eval")):
        network.train(training)
        same(model.predict(x, sigma).data, g, key, rtol=1e-12, atol=1e-14)
        end = model.flow_map(x, sigma, torch.zeros_like(sigma))
        same(end, g, key, rtol=1e-12, atol=1e-13)
        prediction = model.predict(x, sigma)
        again = x - sigma[:, None] * prediction.velocity
        same(again, g, key, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(prediction.noise, prediction.velocity)
    same(
        network.x / x, {"c_in": g["c_in"].reshape(-1, 1).repeat(x.shape[1], 1)}, "c_in", rtol=1e-12
    )
    same(network.c_noise, g, "c_noise", rtol=1e-12)


def check_sampler(case):
    g = load(case)
    model = Exact(Perceptron(g), ConsistencyPreconditioning(shift_in_sampling=False))
    times = [float(g["t_max"]), *(float(t) for t in g["mid_t"].reshape(-1)), 0.0]
    sampler = FlowMapSampler(steps=len(times) - 1, time_grid=Given(values=times), noise="restart")
    noise = tensor(g, "noise")
    samples = sampler.sample(model, tensor(g, "latents"), noise=lambda step, like: noise[step])
    same(torch.stack(model.received), g, "x_calls")
    same(samples.x, g, "final")
    assert samples.nfe.tolist() == [len(times) - 1] * len(samples.x)


def tcm_weights(name, *, sigma_data=0.5):
    """Weighting and leap weight of the names in the authors' code."""
    return {
        "default": (None, InverseGap()),
        "sqrt": (None, InverseGap(power=0.5)),
        "cout": (weightings.EDM(sigma_data=sigma_data, power=0.5), UniformLeaps()),
        "cout_sq": (weightings.EDM(sigma_data=sigma_data), UniformLeaps()),
        "one": (None, UniformLeaps()),
    }[name]


def check_tcm_loss(case):
    g = load(case)
    options = json.loads(str(g["options_json"]))
    boundary, count = options["transition_t"], 0
    t = torch.exp(tensor(g, "logt"))
    if int(g["stage2"]):
        count = int(len(t) * options["boundary_prob"])
        t[tensor(g, "perm")[:count]] = boundary + 1e-8
    same(t, g, "t")
    ratio = min(1.0 - options["q"] ** -(options["stage"] + 1.0), options["ratio_limit"])
    same(torch.tensor(ratio, dtype=torch.float64), g, "ratio")
    step = t * (1.0 - ratio) * (1.0 + 8.0 * torch.sigmoid(-t))
    same((t - step).clamp(min=1e-6), g, "r")

    c = options["c"]
    square = SumOfSquares(factor=1.0)
    premetric = root_or_huber(c) if c > 0.0 or options["sqrt"] else square
    weighting, leap_weight = tcm_weights(options["weighting"])
    parts = {"premetric": premetric, "weighting": weighting}
    rule = ConsistencyPreconditioning()
    model, first = Exact(Perceptron(g), rule), Exact(Perceptron(g, "1"), rule)
    if int(g["stage2"]):
        parts["target"] = TruncatedTarget(teacher=first, at=boundary)
    plain = matching(leap_weight=leap_weight, **parts)
    leap = rows(g, plain, model)
    distance = torch.linalg.vector_norm(torch.sub(*ends(plain, model, leap)), dim=1)
    loss, errors = plain.losses(model, leap)
    error = errors["error"]
    here = t == boundary + 1e-8 if count else torch.zeros_like(t, dtype=torch.bool)
    same(error[~here], g, "loss_unweighted", rtol=1e-8)
    same(loss[~here], g, "row_loss", rtol=1e-8)
    same(t[~here], g, "t_rows")
    same(distance[~here], g, "l2", rtol=1e-8)
    same(loss[here] if count else torch.zeros_like(loss), g, "loss_boundary", rtol=1e-8)
    if int(g["stage2"]):
        weight = BoundaryRows(of=leap_weight, at=boundary, weight=float(g["w_boundary"]))
        loss, _ = matching(leap_weight=weight, **parts).losses(model, leap)
    same(loss.mean(), g, "loss", rtol=1e-8)
    for key, gradient in model.gradients(loss.mean()).items():
        same(gradient, g, key, rtol=1e-8)


CM_WEIGHTS = {
    "snr": weightings.SNR(),
    "snr+1": weightings.EDM(sigma_data=1.0),
    "karras": weightings.EDM(sigma_data=0.5),
    "truncated-snr": weightings.TruncatedSNR(),
    "uniform": weightings.Uniform(),
}


def check_cm_loss(case):
    g = load(case)
    options = json.loads(str(g["options_json"]))
    rho, steps = options["rho"], options["num_scales"] - 1
    high, low = options["sigma_max"] ** (1 / rho), options["sigma_min"] ** (1 / rho)
    for key, offset in (("t", 0), ("r", 1)):
        index = tensor(g, "indices") + offset
        same((high + index.double() / steps * (low - high)) ** rho, g, key)

    distilled = str(g["mode"]) == "cd"
    rule = ConsistencyPreconditioning(
        sigma_min=options["sigma_min"], shift_in_training=bool(options["distillation"])
    )
    model = Exact(Perceptron(g), rule)
    model.averages = {"target": Exact(Perceptron(g, "t"), rule)}
    driver = DataChord()
    if distilled:
        driver = TeacherStep(teacher=Exact(Perceptron(g, "d"), EDMPreconditioning()))
    objective = matching(
        driver=driver,
        target=EMATarget(name="target"),
        premetric={"l1": L1(), "l2": SquaredL2()}[options["loss_norm"]],
        weighting=CM_WEIGHTS[options["weight_schedule"]],
    )
    leap = rows(g, objective, model)
    gap = (leap.t - leap.s)[:, None]
    same(leap.x_t - gap * driver.velocity(model, leap, leap.s), g, "x_r")
    loss, _ = objective.losses(model, leap)
    same(loss, g, "row_loss")
    same(loss.mean(), g, "loss")
    for key, gradient in model.gradients(loss.mean()).items():
        same(gradient, g, key)


def check_ict(case):
    g = load(case)
    s0, s1, steps = int(g["s0"]), int(g["s1"]), int(g["total_steps"])
    stage = np.floor(steps / (np.log2(s1 / s0) + 1))
    levels = np.minimum(s0 * 2.0 ** np.floor(g["steps"] / stage), s1) + 1
    np.testing.assert_array_equal(levels, g["N"])
    grid = edm_sigmas(
        int(g["N_grid"]),
        sigma_min=float(g["sigma_min"]),
        sigma_max=float(g["sigma_max"]),
        rho=float(g["rho"]),
    )[:-1].flip(0)
    same(grid, g, "sigmas")
    edges = torch.erf((grid.log() - float(g["P_mean"])) / (2**0.5 * float(g["P_std"])))
    same(edges.diff() / edges.diff().sum(), g, "prob")
    below = torch.bucketize(tensor(g, "uniform"), tensor(g, "prob").cumsum(0))
    np.testing.assert_array_equal(below.numpy(), g["index"])

    objective = matching(
        premetric=PseudoHuber(c_per_root=0.00054, mean=False), leap_weight=InverseGap()
    )
    dimensions = g["x"].shape[1]
    assert np.isclose(objective.premetric.transition(dimensions), g["c_huber"], rtol=1e-12)
    rule = ConsistencyPreconditioning(sigma_min=float(g["sigma_min"]), shift_in_training=True)
    model = Exact(Perceptron(g), rule)
    index = g["index"]
    times = {"t": g["sigmas"][index + 1], "r": g["sigmas"][index]}
    leap = rows(g | times, objective, model)
    same(objective.leap_weight(leap, model.path.schedule), g, "weight", rtol=1e-10)
    loss, _ = objective.losses(model, leap)
    same(loss, g, "row_loss")
    same(loss.mean(), g, "loss")
    for key, gradient in model.gradients(loss.mean()).items():
        same(gradient, g, key)


class GaussianMap(Model):
    """The exact consistency function of data N(0, s^2) on the VE path."""

    is_flow_map = True
    time_range = (1e-9, 1e6)

    def __init__(self, s):
        self.path, self.s = Path(VE()), s

    def _std(self, t):
        return (self.s**2 + t**2).sqrt()

    def predict(self, x_t, t, **conditions):
        return Prediction.of_data(
            self.path, x_t, t, x_t * expand_as(self.s / self._std(t), x_t) ** 2
        )

    def average_velocity(self, x_t, t, r, **conditions):
        shrunk = expand_as(self._std(r) / self._std(t), x_t) * x_t
        return (x_t - shrunk) / expand_as(t - r, x_t)


def check_gauss(case):
    """The map is constant along the ODE, and there the loss of the exact map is 0."""
    g = load(case)
    s, t, x_t, x0 = float(g["s"]), tensor(g, "t"), tensor(g, "x_t"), tensor(g, "x0")
    model = GaussianMap(s)
    zero = torch.zeros_like(t)
    same(model.flow_map(x_t, t, zero), g, "f", rtol=1e-12, atol=1e-15)
    same(model.denoise(x_t, t), g, "D", rtol=1e-12, atol=1e-15)
    same(x0 * (s**2 + t[:, None] ** 2).sqrt() / s, g, "x_t", rtol=1e-12)
    plain = Exact(KnownOutput(torch.zeros_like(x_t)), EDMPreconditioning(sigma_data=s))
    same(plain.denoise(x_t, t), g, "D", rtol=1e-12, atol=1e-15)

    # From a later time to an earlier one along the exact ODE, both ways end at x0.
    order = torch.argsort(t)
    later, earlier = order[1:], order[:-1]

    class Along(DataChord):
        def velocity(self, model, leap, s):
            return (x_t[later] - x_t[earlier]) / (t[later] - t[earlier])[:, None]

    objective = matching(driver=Along(), premetric=SquaredL2())
    leap = rows({"x": x_t[later].numpy() * 0, "e": (x_t[later] / t[later, None]).numpy(),
                 "t": t[later].numpy(), "r": t[earlier].numpy()}, objective, model)  # fmt: skip
    assert float(objective.losses(model, leap)[1]["error"].max()) < 1e-20


CHECKS = {
    "ect_loss": check_ect_loss,
    "precond": check_precond,
    "sampler": check_sampler,
    "tcm_loss": check_tcm_loss,
    "cm_loss": check_cm_loss,
    "ict": check_ict,
    "gauss": check_gauss,
}
