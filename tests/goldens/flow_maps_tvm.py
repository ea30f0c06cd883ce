"""Terminal velocity matching against the authors' loss and wrapper."""

import json

import torch

from flowexp.broadcast import expand_as
from flowexp.couplings import Pairs
from flowexp.objectives import SquaredL2
from flowexp.objectives.flow_map import (
    ConstantScale,
    DropEach,
    EMATarget,
    InverseScale,
    KeepLabels,
    Lagrangian,
    Legs,
    TerminalVelocityMatching,
    UniformScale,
)
from tests.goldens.flow_maps_network import GoldenFlowMap, load, tensor

OF_SCALE = 0.3


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


class ToldScale(GoldenFlowMap):
    """The golden network conditioned on 1/w; no label is the zero embedding."""

    def __init__(self, g, *, scaled, suffix="", averages=None):
        super().__init__(g, suffix=suffix, averages=averages)
        self.scaled = scaled

    def average_velocity(self, x_t, t, r, **conditions):
        p, w = self.parameters, conditions["guidance_scale"]
        labels = conditions["labels"]
        embedding = torch.where((labels < 0)[:, None], 0.0, p["E"][labels])
        times, ends = (expand_as(time, x_t) for time in (t, r))
        inner = x_t @ p["W"].T + p["b"] * times + embedding
        u = 1.3 * torch.tanh(inner) * (1 + times**2 / 2) + p["c"] * torch.sin(2 * (times - ends))
        u = u + OF_SCALE * p["c"] / expand_as(w, x_t)
        return expand_as(w, x_t) * u if self.scaled else u


def scales_of(options):
    if options["cfg"] is not None:
        return ConstantScale(scale=options["cfg"])
    if options["max_cfg"] is not None:
        return UniformScale(smallest=options["min_cfg"], largest=options["max_cfg"])
    return InverseScale()


def check_tvm(case):
    g = load(case)
    options = json.loads(str(g["options_json"]))
    scaled = bool(options["do_scale_param"])
    average = ToldScale(g, scaled=scaled, suffix="_ema")
    model = ToldScale(g, scaled=scaled, averages={"target": average})
    dropout = options["label_dropout"] or 0.0
    objective = TerminalVelocityMatching(
        leg=Lagrangian(through_derivative=not options["detach_jvp"]),
        premetric=SquaredL2(),
        target=EMATarget(name="target"),
        labels=DropEach(label_dropout=dropout) if dropout else KeepLabels(),
        guidance_inputs=scales_of(options),
    )
    times = torch.stack([tensor(g, name) for name in ("t", "r", "r_prime")], dim=1)
    recorded = {"labels": "uniform_drop", "guidance_inputs": "uniform_w"}
    drawn = [tensor(g, name) for part, name in recorded.items() if objective.drawn[part]]
    uniforms = torch.stack(drawn, dim=1) if drawn else times[:, :0]
    pairs = Pairs(
        x=tensor(g, "x"),
        e=tensor(g, "e"),
        conditions={"labels": tensor(g, "labels")},
        uniforms=uniforms,
    )
    leap = objective.leap(model, pairs, times, rng=torch.Generator())
    assert_equal(leap.x_t, tensor(g, "z"))
    w = leap.conditions["guidance_scale"]
    assert_equal(w, tensor(g, "w"))
    assert torch.equal(leap.conditions["labels"] < 0, tensor(g, "dropped") == 1)

    legs = Legs(objective.driver, objective.target, objective.diagonal)
    compared = objective.leg.compare(model, leap, legs)
    assert_equal(compared.prediction, tensor(g, "dX"))
    now = objective.beside(model, leap)
    assert_equal(objective.guided(model, now, w), tensor(g, "v_target"))
    terms = objective.terms(model, leap)
    assert_equal(terms["terminal"], tensor(g, "terminal_rows"))
    assert_equal(terms["diagonal"], tensor(g, "fm_rows"))
    rows, _ = objective.losses(model, leap)
    assert_equal(rows, tensor(g, "row_loss"))
    assert_equal(rows.mean(), tensor(g, "loss").squeeze())
    for name, gradient in model.gradients(rows.mean()).items():
        assert_equal(gradient, tensor(g, name))


CHECKS = {"tvm": check_tvm}
