"""Flow-map goldens: self-distillation (LSD, PSD, ESD), the common target, the Gaussian flow map."""

import torch

from flowexp.couplings import Pairs
from flowexp.objectives import FlowMapMatching, SumOfSquares
from flowexp.objectives.flow_map import (
    JVP,
    DataVelocity,
    Eulerian,
    FixedShare,
    Lagrangian,
    LearnedLogVariance,
    Legs,
    OnlineTarget,
    OwnStep,
    OwnVelocity,
    RandomShare,
    Residual,
    Tangent,
)
from flowexp.paths import Path
from flowexp.seeding import generator
from tests.goldens.flow_maps_network import PATHS, GoldenFlowMap, load, tensor
from tests.objectives.flow_map.exact import GaussianMap

STOPPED = {"full": (False, False), "convex": (False, True), "none": (True, True)}
"""Whether driver and target have a gradient in ESD; in PSD and LSD ``convex`` stops both."""


class AffineLogVariance(LearnedLogVariance):
    """``w = a0 + a1 r + a2 t``."""

    def __init__(self, a):
        super().__init__()
        self.a = torch.nn.Parameter(a)

    def log_variance(self, t, r):
        return self.a[0] + self.a[1] * r + self.a[2] * t


def close(found, expected, *, rtol=1e-9, atol=1e-10):
    torch.testing.assert_close(found.detach(), expected, rtol=rtol, atol=atol)


def leap_of(objective, model, g, *, uniforms=None):
    """The rows of a case as the objective makes them; all of them drawn in advance."""
    times = torch.stack([tensor(g, "t"), tensor(g, "r")], dim=1)
    pairs = Pairs(x=tensor(g, "x"), e=tensor(g, "e"), conditions={}, uniforms=uniforms)
    return objective.leap(model, pairs, times, rng=generator(0, "golden")), pairs, times


def rows_of(objective, model, leap):
    """Differences and losses of the rows in float64; ``FlowMapMatching.loss`` rounds to float32."""
    legs = Legs(objective.driver, objective.target, objective.diagonal)
    comparison = objective.leg.compare(model, leap, legs)
    difference = objective.regressed.difference(comparison, leap)
    error = objective.premetric(difference)
    return comparison, difference, objective.error_weight(error, leap, comparison)


def self_distillation(kind, stopgrad, weight):
    gradient = stopgrad == "none"
    parts = {
        "lsd": lambda: (DataVelocity(), Lagrangian(), OnlineTarget(gradient=gradient)),
        "psd_midpoint": lambda: (
            OwnStep(target=OnlineTarget(gradient=gradient)),
            FixedShare(share=0.5),
            OnlineTarget(gradient=gradient),
        ),
        "psd_uniform": lambda: (
            OwnStep(target=OnlineTarget(gradient=gradient)),
            RandomShare(),
            OnlineTarget(gradient=gradient),
        ),
        "esd": lambda: (
            OwnVelocity(target=OnlineTarget(gradient=STOPPED[stopgrad][0])),
            Eulerian(),
            OnlineTarget(gradient=STOPPED[stopgrad][1]),
        ),
    }
    driver, leg, target = parts["lsd" if kind == "diagonal" else kind]()
    return FlowMapMatching(
        driver=driver,
        leg=leg,
        target=target,
        premetric=SumOfSquares(factor=1.0),
        error_weight=weight,
    )


def check_selfdistill(case):
    """The row losses, and the gradients with respect to the network and the log-variance."""
    g = load(case)
    model = GoldenFlowMap(g, path=Path(PATHS[str(g["interp"])]()))
    diagonal = int(g["diag_rows"])
    g["r"][:diagonal] = g["t"][:diagonal]
    weight = AffineLogVariance(tensor(g, "w_a"))
    objective = self_distillation(str(g["type"]), str(g["stopgrad"]), weight)
    uniforms = tensor(g, "lam")[:, None] if objective.uniforms else None
    leap, pairs, times = leap_of(objective, model, g, uniforms=uniforms)
    close(leap.x_t, tensor(g, "z"))
    if "s" in g:
        far = leap.r < leap.t
        close(objective.leg.end(leap)[far], tensor(g, "s")[far])
    _, residual, rows = rows_of(objective, model, leap)
    # Residuals are squared; the references differ in their sign.
    sign = torch.sign((residual.detach() * tensor(g, "residual")).sum(1, keepdim=True))
    close(sign * residual, tensor(g, "residual"))
    close(rows, tensor(g, "row_loss"))
    close(rows.mean(), tensor(g, "loss"))
    (gradient,) = torch.autograd.grad(rows.mean(), [weight.a], retain_graph=True)
    close(gradient, tensor(g, "g_w_a"))
    for name, found in model.gradients(rows.mean()).items():
        close(found, tensor(g, name))
    whole = objective.loss(model, pairs, times, rng=generator(0, "golden")).per_sample
    close(whole.double(), tensor(g, "row_loss"), rtol=1e-6, atol=1e-6)


def check_target(case):
    """``a d + (1 - a) u(x_s, s, r)``, its residual, and the limit a -> 0."""
    g = load(case)
    model = GoldenFlowMap(g)
    driver = OwnStep() if str(g["driver"]) == "own" else DataVelocity()
    for a, target, residual in zip(g["a"], tensor(g, "u_tgt"), tensor(g, "residual"), strict=True):
        objective = FlowMapMatching(
            driver=driver,
            leg=FixedShare(share=float(a)),
            premetric=SumOfSquares(factor=1.0),
            regressed=Residual(),
        )
        leap, *_ = leap_of(objective, model, g)
        comparison, difference, _ = rows_of(objective, model, leap)
        close(leap.x_t, tensor(g, "z"), rtol=1e-10)
        close(comparison.prediction, tensor(g, "u"), rtol=1e-10)
        close(comparison.target, target, rtol=1e-10, atol=1e-12)
        close(-difference, residual, rtol=1e-8, atol=1e-9)
    if "limit" in g:
        objective = FlowMapMatching(
            driver=driver, leg=Tangent(), premetric=SumOfSquares(factor=1.0), regressed=Residual()
        )
        leap, *_ = leap_of(objective, model, g)
        comparison, difference, _ = rows_of(objective, model, leap)
        close(-difference, tensor(g, "limit"), rtol=1e-8)
        slope = (leap.velocity - comparison.target) / (leap.t - leap.r)[:, None]
        close(slope, tensor(g, "dudt"), rtol=1e-8)


def check_gauss_map(case):
    """The closed-form map, its three equations, and the derivatives of our legs on it."""
    g = load(case)
    path = Path(PATHS[str(g["path"])]())
    model = GaussianMap(path, mean=tensor(g, "data_mean"), std=tensor(g, "data_std"))
    z, t, s, r = (tensor(g, name) for name in ("z", "t", "s", "r"))
    X_r = model.flow_map(z, t, r)
    close(X_r, tensor(g, "X_r"), rtol=1e-10)
    X_s = model.flow_map(z, t, s)
    close(X_s, tensor(g, "X_s"), rtol=1e-10)
    close(model.average_velocity(z, t, r), tensor(g, "u"), rtol=1e-10)
    v_t = model.velocity(z, t)
    close(v_t, tensor(g, "v_t"), rtol=1e-10)
    v_r = model.velocity(X_r, r)
    close(v_r, tensor(g, "v_r"), rtol=1e-10)
    close(model.flow_map(X_s, s, r) - X_r, tensor(g, "semigroup"), atol=1e-9)

    one, zero = torch.ones_like(t), torch.zeros_like(t)
    along = JVP().along
    _, dX_dr = along(lambda r: model.flow_map(z, t, r), (r,), (one,))
    close(dX_dr, tensor(g, "dX_dr"), rtol=1e-10)
    close(dX_dr, v_r, atol=1e-9)
    _, dX_dt = along(lambda t: model.flow_map(z, t, r), (t,), (one,))
    close(dX_dt, tensor(g, "dX_dt"), rtol=1e-10)
    _, jac = along(lambda z: model.flow_map(z, t, r), (z,), (torch.ones_like(z),))
    close(jac, tensor(g, "jac"), rtol=1e-10)
    close(dX_dt + jac * v_t, tensor(g, "eulerian"), atol=1e-9)
    u, dudt = along(model.average_velocity, (z, t, r), (v_t, one, zero))
    close(dudt, tensor(g, "dudt"), rtol=1e-8)
    close(v_t - (t - r)[:, None] * dudt - u, tensor(g, "meanflow"), atol=1e-9)


CHECKS = {"selfdistill": check_selfdistill, "target": check_target, "gauss_map": check_gauss_map}
