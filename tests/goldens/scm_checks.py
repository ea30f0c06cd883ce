"""sCM (Lu & Song; NVIDIA's FastGen): TrigFlow, the tangent of continuous time, losses, samplers."""

import json

import pytest
import torch

from flowexp.broadcast import expand_as
from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives import FlowMapMatching, SquaredL2, SquaredL2PerDimension
from flowexp.objectives.flow_map import (
    CentralDifference,
    DataVelocity,
    LearnedLogVariance,
    Legs,
    Normalized,
    TeacherVelocity,
    TrigFlowOutput,
    TrigFlowTangent,
)
from flowexp.objectives.flow_map.leaps import OnlineTarget
from flowexp.objectives.weightings import InverseNoise, Uniform
from flowexp.parameterizations import (
    EDMPreconditioning,
    QuarterCircle,
    TrigFlow,
    time_at_angle,
)
from flowexp.paths import VE, Linear, Path, Prediction, Trigonometric
from flowexp.samplers import DDIM, FlowMapSampler, Given
from tests.goldens.flow_maps_network import load, tensor

SCHEDULES = (VE(t_max=1e4), Linear(), Trigonometric())


class GoldenTrigFlow(Model):
    """The stand-in of the goldens, ``F = -(1.3 tanh(x_theta/sd W^T + b cn) + c sin cn)``.

    The data prediction ``cos x_theta - sin sd F`` is the end of its flow map. ``unlabelled`` is
    evaluated where all labels are -1.
    """

    is_flow_map = maps_to_data_only = True

    def __init__(self, g, schedule, *, suffix="", unlabelled=None):
        self.path = Path(schedule)
        self.time_range = (schedule.t_min, schedule.t_max)
        self.sigma_data = float(g["sigma_data"])
        self.parameters = {
            name: tensor(g, name + suffix).clone().requires_grad_() for name in ("W", "b", "c")
        }
        self.unlabelled = unlabelled

    def output(self, x_theta, circle):
        p = self.parameters
        cn = torch.log(circle.c.sigma / circle.c.alpha) / 4
        cn = cn.expand(len(x_theta))[:, None]
        inner = x_theta / self.sigma_data @ p["W"].T + p["b"] * cn
        return -(1.3 * torch.tanh(inner) + p["c"] * torch.sin(cn))

    def predict(self, x_t, t, **conditions):
        labels = conditions.get("labels")
        if labels is not None and bool((labels < 0).all()):
            return self.unlabelled.predict(x_t, t)
        circle = QuarterCircle(self.path.schedule.coefficients(t), self.sigma_data)
        x_theta = circle.state(x_t)
        F = self.output(x_theta, circle)
        data = expand_as(circle.cos, F) * x_theta - expand_as(circle.sin, F) * self.sigma_data * F
        return Prediction.of_data(self.path, x_t, t, data)

    def average_velocity(self, x_t, t, r, **conditions):
        assert not r.any()
        return (x_t - self.predict(x_t, t, **conditions).data) / expand_as(t, x_t)


class GoldenLogVariance(LearnedLogVariance):
    """``a0 + a1 ln(sigma/alpha)/4``."""

    def __init__(self, a, schedule, **arguments):
        super().__init__(**arguments)
        self.a, self.schedule = a, schedule

    def log_variance(self, t, r):
        t = t / (1.0 - t) if isinstance(self.schedule, VE) else t
        return self.a[0] + self.a[1] * torch.log(self.schedule.nsr(t)) / 4


def with_sigma_data(g):
    """Loss files hold sigma_data among their options."""
    options = json.loads(str(g["options_json"]))
    return g | {"sigma_data": options["sigma_data"]}, options


def assert_close(found, expected, rtol=1e-8, atol=1e-12):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def check_trig(case):
    g = load(case)
    s_d, theta, sigma = float(g["sigma_data"]), tensor(g, "theta"), tensor(g, "sigma")
    for schedule in SCHEDULES:
        t = time_at_angle(schedule, theta, sigma_data=s_d)
        c = schedule.coefficients(t)
        circle = QuarterCircle(c, s_d)
        assert_close(circle.angle, theta, rtol=1e-12)
        assert_close(c.sigma / c.alpha, sigma, rtol=1e-9)
        x_t = tensor(g, "x_theta") / expand_as(s_d / circle.q, tensor(g, "x_theta"))
        assert_close(x_t / c.alpha[:, None], tensor(g, "x_edm"), rtol=1e-9)
        assert_close(circle.state(x_t), tensor(g, "x_theta"), rtol=1e-9)
        rule = EDMPreconditioning(sigma_data=s_d)
        inputs = rule.inputs(schedule, t, c)
        assert_close(inputs.c_noise, torch.log(sigma) / 4, rtol=1e-9)
        inner = (inputs.c_in[:, None] * x_t) @ tensor(g, "W").T
        cn = inputs.c_noise[:, None]
        raw = 1.3 * torch.tanh(inner + tensor(g, "b") * cn) + tensor(g, "c") * torch.sin(cn)
        assert_close(raw, tensor(g, "F_edm"), rtol=1e-9)
        assert_close(rule.conversion(c).data(x_t, raw), tensor(g, "D"), rtol=1e-9)
        c_noise = TrigFlow(sigma_data=s_d).inputs(schedule, t, c).c_noise
        assert_close(c_noise, theta, rtol=1e-12)
        model = GoldenTrigFlow(g, schedule)
        F = circle.output(x_t, model.denoise(x_t, t))
        assert_close(F, tensor(g, "F"), rtol=1e-9)
        a = tensor(g, "a")
        assert_close(a[0] + a[1] * inputs.c_noise, tensor(g, "logvar"), rtol=1e-9)


def loss_parts(g, options, schedule):
    teacher = None
    if str(g["mode"]).startswith("cd"):
        without = GoldenTrigFlow(g, schedule, suffix="_u") if "W_u" in g else None
        teacher = GoldenTrigFlow(g, schedule, suffix="_t", unlabelled=without)
    scale = options.get("guidance_scale")
    driver = DataVelocity()
    if teacher is not None:
        driver = TeacherVelocity(teacher=teacher, guidance_scale=1.0 if scale is None else scale)
    leg = TrigFlowTangent(
        sigma_data=options["sigma_data"],
        # One image a step.
        warmup_kimg=options["tangent_warmup_steps"] / 1000.0,
        limit=Normalized(
            c=options["tangent_warmup_const"],
            per_dimension=options["g_norm_spatial_invariance"],
        ),
    )
    return driver, leg


def check_loss(case):
    g, options = with_sigma_data(load(case))
    s_d, sigma = options["sigma_data"], tensor(g, "sigma")
    for schedule in (VE(t_max=1e4), Trigonometric()):
        driver, leg = loss_parts(g, options, schedule)
        model = GoldenTrigFlow(g, schedule)
        a = tensor(g, "a").clone().requires_grad_()
        prior = InverseNoise() if options["prior_weighting_enabled"] else Uniform()
        per_dimension = options["divide_x_0_spatial_dim"]
        objective = FlowMapMatching(
            driver=driver,
            leg=leg,
            premetric=SquaredL2PerDimension() if per_dimension else SquaredL2(),
            regressed=TrigFlowOutput(sigma_data=s_d),
            error_weight=GoldenLogVariance(a, schedule, prior=prior),
        )
        labels = torch.zeros(len(sigma), dtype=torch.int64)
        pairs = Pairs(
            x=tensor(g, "x"),
            e=tensor(g, "e"),
            conditions={"labels": labels},
            images_seen=int(options["iteration"]),
        )
        rng = torch.Generator()
        t = schedule.time_at_nsr(sigma)
        leap = objective.leap(model, pairs, t, rng=rng)
        legs = Legs(driver, OnlineTarget(), driver)
        circle = QuarterCircle(schedule.coefficients(t), s_d)
        assert_close(circle.angle, tensor(g, "theta"))
        assert_close(circle.state(leap.x_t), tensor(g, "x_theta"))
        velocity = driver.velocity(model, leap, t).detach()
        assert_close(circle.velocity(leap.x_t, velocity), tensor(g, "dxdt"))
        F = circle.output(leap.x_t, model.denoise(leap.x_t, t)).detach()
        assert_close(F, tensor(g, "F"))
        assert leg.share(leap.images_seen) == pytest.approx(float(g["warmup"]))
        raw = leg.tangent(model, leap, legs).detach()
        assert_close(raw, tensor(g, "g_raw"))
        warmup = float(g["warmup"])
        if warmup > 0.0:
            along_driver = s_d * F - tensor(g, "dxdt")
            change = -(raw + expand_as(circle.cos**2, raw) * along_driver) / warmup
            turned = expand_as(circle.cos * circle.sin, raw) * tensor(g, "x_theta")
            assert_close((change - turned) / s_d, tensor(g, "JF"))
        assert_close(leg.limit(raw), tensor(g, "g"))
        comparison = leg.compare(model, leap, legs)
        difference = objective.regressed.difference(comparison, leap)
        assert_close(difference.detach(), -tensor(g, "g"))
        assert_close(SquaredL2()(difference).detach(), tensor(g, "unweighted_rows"))
        w = objective.error_weight.log_variance(schedule.unit_time(t), 0.0 * t)
        assert_close(w.detach(), tensor(g, "logvar"))
        error = objective.premetric(difference)
        rows = objective.error_weight(error, leap, comparison)
        assert_close(rows.detach(), tensor(g, "row_loss"))
        assert_close(rows.mean().detach(), tensor(g, "loss"))
        wanted = {**model.parameters, "a": a}
        found = torch.autograd.grad(rows.mean(), list(wanted.values()))
        for name, gradient in zip(wanted, found, strict=True):
            assert_close(gradient, tensor(g, f"g_{name}"))
        whole = objective.loss(model, pairs, t, rng=rng).per_sample.detach()
        assert_close(whole, tensor(g, "row_loss").float(), rtol=1e-6)


def check_tangent(case):
    g = load(case)
    s_d, theta = float(g["sigma_data"]), tensor(g, "theta")
    for schedule in SCHEDULES:
        t = time_at_angle(schedule, theta, sigma_data=s_d)
        c = schedule.coefficients(t)
        circle = QuarterCircle(c, s_d)
        x_t = tensor(g, "x_theta") / expand_as(s_d / circle.q, tensor(g, "x_theta"))
        v = velocity_of(circle, x_t, tensor(g, "dxdt"))
        data = Prediction.of_velocity(Path(schedule), x_t, t, v)
        objective = FlowMapMatching(
            driver=DataVelocity(), leg=TrigFlowTangent(sigma_data=s_d), premetric=SquaredL2()
        )
        model = GoldenTrigFlow(g, schedule)
        pairs = Pairs(x=data.data, e=data.noise, conditions={})
        leap = objective.leap(model, pairs, t, rng=torch.Generator())
        legs = Legs(DataVelocity(), OnlineTarget(), DataVelocity())
        for derivative, atol in ((None, 1e-9), (CentralDifference(step=1e-4), 1e-6)):
            leg = TrigFlowTangent(sigma_data=s_d, derivative=derivative)
            found = leg.tangent(model, leap, legs).detach()
            assert_close(found, tensor(g, "g_raw"), rtol=0, atol=atol)
            expected = expand_as(circle.cos, found) * tensor(g, "df")
            assert_close(found, expected, rtol=0, atol=max(atol, 1e-7))


def velocity_of(circle, x_t, dxdt):
    """The path's velocity of a velocity in theta."""
    offset = circle.velocity(x_t, torch.zeros_like(x_t))
    return (dxdt - offset) * expand_as(circle.c.wronskian / circle.q, x_t)


def check_gauss(case):
    g = load(case)
    s_d, theta, x = float(g["sigma_data"]), tensor(g, "theta"), tensor(g, "x")
    for schedule in SCHEDULES:
        c = schedule.coefficients(time_at_angle(schedule, theta, sigma_data=s_d))
        circle = QuarterCircle(c, s_d)
        x_t = x / expand_as(s_d / circle.q, x)
        assert_close(circle.output(x_t, tensor(g, "f")), tensor(g, "F_consistency"), rtol=1e-12)
        # Marginals are stationary: E[x | x_theta] = cos x_theta.
        data = expand_as(circle.cos, x) * x
        assert_close(circle.output(x_t, data), tensor(g, "F_diffusion"), atol=1e-12)
        read = TrigFlow(sigma_data=s_d).conversion(c).data
        assert_close(read(x_t, -tensor(g, "F_consistency")), x, rtol=1e-12)


def check_sampler(case):
    g = load(case)
    s_d, grid = float(g["sigma_data"]), tensor(g, "theta_grid")
    consistency = str(g["mode"]) == "consistency"
    if consistency:
        grid = torch.cat([grid, torch.zeros(1, dtype=torch.float64)])
    for schedule in SCHEDULES:
        model = GoldenTrigFlow(g, schedule)
        model.maps_to_data_only = consistency  # for DDIM its output is a velocity
        times = time_at_angle(schedule, grid, sigma_data=s_d)
        stepping = {"steps": len(grid) - 1, "time_grid": Given(values=times.tolist())}
        sampler = FlowMapSampler(noise="restart", **stepping) if consistency else DDIM(**stepping)
        states = []

        def observe(t, x, states=states, schedule=schedule):
            circle = QuarterCircle(schedule.coefficients(t), s_d)
            states.append(circle.state(x))

        def noise(index, x, g=g):
            return tensor(g, "noise")[index]

        samples = sampler.sample(model, tensor(g, "e"), noise=noise, on_step=observe)
        expected = tensor(g, "states")
        assert_close(torch.stack(states)[: len(expected)], expected, rtol=1e-10)
        assert_close(samples.x, tensor(g, "final"), rtol=1e-10)
        assert int(samples.nfe[0]) == len(grid) - 1


CHECKS = {
    "trig": check_trig,
    "loss": check_loss,
    "tangent": check_tangent,
    "gauss": check_gauss,
    "sampler": check_sampler,
}
