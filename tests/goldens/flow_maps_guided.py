"""Goldens of flow maps: alpha-Flow, improved MeanFlow and SoFlow, values and gradients."""

import json
import math

import torch

from flowexp.broadcast import expand_as
from flowexp.couplings import Pairs
from flowexp.objectives import FlowMapMatching, SquaredL2, SumOfSquares
from flowexp.objectives.flow_map import (
    Adaptive,
    AdaptiveByShare,
    ConstantMix,
    ConstantShare,
    DataVelocity,
    DecayingMix,
    DrawnGuidance,
    DropFirst,
    GivenMiddle,
    GuidanceScaleMix,
    Guided,
    HeadVelocity,
    KeepLabels,
    LabelDrop,
    Legs,
    Residual,
    ScheduledShare,
    Tangent,
)
from flowexp.paths import Path
from tests.goldens.flow_maps_network import PATHS, GoldenFlowMap, load, tensor


class AsGiven(LabelDrop):
    """Drops the labels of given rows."""

    label_dropout = 0.5

    def __init__(self, rows):
        self.rows = rows

    def dropped(self, leap, allowed):
        return self.rows


def close(found, g, name, *, rtol=1e-9, atol=1e-10):
    wanted = tensor(g, name)
    found = torch.as_tensor(found).detach().to(wanted.dtype)
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=atol, msg=lambda m: f"{name}: {m}")


def labels_of(g, classes):
    """Labels with -1 for the null class."""
    labels = tensor(g, "labels")
    return {"labels": torch.where(labels >= classes, -1, labels)}


def leap_of(objective, model, g, conditions, *, uniforms=None):
    """The rows of a case, at its state."""
    x, e = tensor(g, "x"), tensor(g, "e")
    pairs = Pairs(
        x, e, conditions, uniforms=torch.zeros(len(x), 0) if uniforms is None else uniforms
    )
    columns = [tensor(g, name) for name in ("t", "r", "s") if name in g]
    leap = objective.leap(model, pairs, torch.stack(columns, dim=1), rng=torch.Generator())
    close(leap.x_t, g, "z")
    return leap


def compared(objective, model, leap):
    """Prediction and target, as ``objective.losses`` has them."""
    return objective.leg.compare(
        model, leap, Legs(objective.driver, objective.target, objective.diagonal)
    )


def gradients_agree(model, loss, g, *, rtol=1e-9, atol=1e-10):
    found = model.gradients(loss)
    assert set(found) == {name for name in g if name.startswith("g_")}
    for name, gradient in found.items():
        close(gradient, g, name, rtol=rtol, atol=atol)


def check_alphaflow(case):
    g = load(case)
    o = json.loads(str(g["options_json"]))
    model, alpha = GoldenFlowMap(g), float(g["alpha"])
    window = {"start": o["t_min"], "end": o["t_max"], "closed": False}
    objective = FlowMapMatching(
        driver=Guided(
            of=DataVelocity(), mix=ConstantMix(omega=o["omega"], kappa=o["kappa"], **window)
        ),
        leg=ScheduledShare(schedule=ConstantShare(value=alpha), clamp=o["clamp_utgt"]),
        premetric=SquaredL2(),
        error_weight=AdaptiveByShare(p=1.0, c=o["eps"]),
    )
    leap = leap_of(objective, model, g, labels_of(g, o["num_classes"]))
    atol = 1e-8 if alpha == 0.0 else 1e-10
    with torch.no_grad():
        guided = objective.driver.velocity(model, leap, leap.t)
    close(guided, g, "v_cfg")
    comparison = compared(objective, model, leap)
    u, target = comparison.prediction, comparison.target
    close(u, g, "u")
    close(target, g, "u_tgt", atol=atol)
    close((u - guided).square().mean(1), g, "tfm")
    close(2.0 * ((guided - target) * u).mean(1), g, "tcc", atol=atol)
    rows, _ = objective.losses(model, leap)
    close(rows, g, "row_loss", atol=atol)
    close(rows / (u - target).square().mean(1), g, "row_weight", atol=atol)
    close(rows.mean(), g, "loss", atol=atol)
    assert int(((leap.r == leap.t).long()).sum()) == int(g["fm_rows"])
    gradients_agree(model, rows.mean(), g, atol=atol)


class GoldenHeads(GoldenFlowMap):
    """The network of the ``imf`` cases: two heads, conditioned on scale and interval."""

    def __init__(self, g):
        super().__init__(g)
        self.parameters["Wv"] = tensor(g, "Wv").clone().requires_grad_()

    def average_velocity(self, x_t, t, r, **conditions):
        p, (scale, width) = self.parameters, self.guidance_of(conditions)
        plain = super().average_velocity(x_t, t, r, **conditions)
        return plain + 0.1 * scale * p["c"] + 0.05 * width * p["b"]

    def with_velocity_head(self, x_t, t, r, **conditions):
        p, (scale, _) = self.parameters, self.guidance_of(conditions)
        inner = x_t @ p["Wv"].T + p["b"] * t[:, None] + p["E"][conditions["labels"]]
        head = 1.1 * torch.tanh(inner) * (1 + t[:, None] ** 2 / 2) + 0.2 * scale * p["c"]
        return self.average_velocity(x_t, t, r, **conditions), head

    @staticmethod
    def guidance_of(conditions):
        names = ("guidance_scale", "guidance_start", "guidance_end")
        scale, start, end = (conditions[name][:, None] for name in names)
        return 1.0 - 1.0 / scale, end - start


def check_imf(case):
    g = load(case)
    o = json.loads(str(g["options_json"]))
    model = GoldenHeads(g)
    drop = o["class_dropout_prob"]
    objective = FlowMapMatching(
        driver=Guided(of=DataVelocity(), mix=GuidanceScaleMix(), predicted=HeadVelocity()),
        leg=Tangent(direction=HeadVelocity()),
        premetric=SumOfSquares(factor=1.0),
        error_weight=Adaptive(p=o["norm_p"], c=o["norm_eps"]),
        labels=DropFirst(label_dropout=drop) if drop > 0.0 else KeepLabels(),
        guidance_inputs=DrawnGuidance(beta=o["cfg_beta"]),
        head_weight=1.0,
    )
    dropping = [tensor(g, "uniform_drop")] if drop > 0.0 else []
    start, end = 2.0 * tensor(g, "uniform_tmin"), 2.0 * tensor(g, "uniform_tmax") - 1.0
    uniforms = torch.stack([*dropping, tensor(g, "uniform_omega"), start, end], dim=1)
    leap = leap_of(objective, model, g, labels_of(g, o["num_classes"]), uniforms=uniforms)
    used = leap.conditions["labels"]
    close(torch.where(used < 0, o["num_classes"], used), g, "labels_used")
    for name, wanted in (("scale", "omega"), ("start", "t_min"), ("end", "t_max")):
        close(leap.conditions[f"guidance_{name}"], g, wanted)
    head = objective.leg.direction
    with torch.no_grad():
        guided = objective.driver.velocity(model, leap, leap.t)
        close(head.velocity(model, leap, leap.t), g, "v_c")
        close(head.velocity(model, leap.unlabelled(), leap.t), g, "v_u")
        close(guided, g, "v_g")
        comparison = compared(objective, model, leap)
        u, v = model.with_velocity_head(leap.x_t, leap.t, leap.r, **leap.conditions)
        close(u, g, "u")
        close(v, g, "v")
        gap, apart = leap.t - leap.r, leap.r < leap.t
        slope = (guided - comparison.target)[apart] / gap[apart][:, None]
        close(slope, {"dudt": g["dudt"][apart.numpy()]}, "dudt", rtol=1e-8)
        close(u + guided - comparison.target, g, "V")
        close((comparison.prediction - comparison.target).square().sum(1), g, "loss_u_rows")
        close((v - guided).square().sum(1), g, "loss_v_rows")
    assert int((~apart).sum()) == int(g["fm_rows"])
    rows, errors = objective.losses(model, leap)
    close(rows.mean(), g, "loss")
    close(errors["error"], g, "loss_u_rows")
    close(errors["head_error"], g, "loss_v_rows")
    gradients_agree(model, rows.mean(), g)


class TrigonometricSteps(GoldenFlowMap):
    """``X_{t->r}(z) = cos(pi (t - r)/2) z - sin(pi (t - r)/2) F`` on any path."""

    def average_velocity(self, x_t, t, r, **conditions):
        output = super().average_velocity(x_t, t, r, **conditions)
        gap = t - r
        angle, short = 0.5 * math.pi * gap, gap.abs() < 1e-12
        safe = torch.where(short, 1.0, gap)
        of_state = expand_as(torch.where(short, 0.0, (1.0 - torch.cos(angle)) / safe), x_t)
        return of_state * x_t + expand_as(self.output_scale(t, r), x_t) * output

    def output_scale(self, t, r):
        gap = t - r
        return 0.5 * math.pi * torch.sinc(0.5 * gap)


def check_soflow(case):
    g = load(case)
    o = json.loads(str(g["options_json"]))
    steps = {"Euler": GoldenFlowMap, "Trig": TrigonometricSteps}[str(g["coefficient"])]
    model = steps(g, path=Path(PATHS[str(g["noising"])]()))
    consistency = str(g["part"]) == "consistency"
    labelled, dropped = bool(g["conditional"]), tensor(g, "cfg_mask") != 0
    mix = DecayingMix(scale=o["cfg_scale"], mix=o["mix_ratio"], decay_time=o["cfg_decay_time"])
    guides = labelled and o["cfg_scale"] > 1.0
    objective = FlowMapMatching(
        driver=Guided(of=DataVelocity(), mix=mix) if guides else DataVelocity(),
        leg=GivenMiddle() if consistency else Tangent(),
        premetric=SquaredL2(),
        regressed=Residual(),
        error_weight=AdaptiveByShare(p=o["p"], c=o["eps"], factor=0.5, per_output=True),
        labels=AsGiven(dropped) if guides else None,
    )
    conditions = labels_of(g, len(g["E"]) - 1) if labelled else {}
    leap = leap_of(objective, model, g, conditions)
    with torch.no_grad():
        close(objective.driver.velocity(model, leap, leap.t), g, "v_guided")
    comparison = compared(objective, model, leap)
    # Euler's (u_tgt - u)/a, and so the residual of the velocity part with the sign of u - v.
    residual = objective.regressed.difference(comparison, leap)
    sign = -1.0 if consistency else 1.0
    close(sign * residual, g, "quotient")
    square = residual.square().mean(1)
    close(square.mean(), g, "mse")
    rows, _ = objective.losses(model, leap)
    scale = torch.ones_like(rows) if consistency else leap.output_scale
    weight = (square + o["eps"]) ** -o["p"] / scale
    close(weight, g, "row_weight")
    close(weight.mean(), g, "weight_mean")
    if consistency:
        # The reference's surrogate has the gradient of our loss, but another value.
        network = GoldenFlowMap.average_velocity(model, leap.x_t, leap.t, leap.r, **leap.conditions)
        close(((residual * network).mean(1) * weight).mean(), g, "loss")
    else:
        close(rows.mean(), g, "loss")
    gradients_agree(model, rows.mean(), g)


CHECKS = {"alphaflow": check_alphaflow, "imf": check_imf, "soflow": check_soflow}
