"""Shortcut models against the targets of the authors' code."""

import json

import torch

from flowexp.couplings import Pairs
from flowexp.objectives import SquaredL2
from flowexp.objectives.flow_map import (
    DropEach,
    EMATarget,
    FlowMapMatching,
    GuidedShortest,
    Legs,
    OnlineTarget,
    OwnStep,
    ShortcutLeg,
)
from flowexp.paths import Linear, Path
from tests.goldens.flow_maps_network import GoldenFlowMap, load, tensor

LEFT_AT_DATA = 1e-5
CLAMP = 4.0


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def batch(g, options):
    """The rows of the final batch: bootstrap rows, then flow rows over the same data."""
    first = options["batch_size"] // options["bootstrap_every"]
    rest = options["batch_size"] - first
    x = torch.cat([tensor(g, "x")[:first], tensor(g, "x")[:rest]])
    e = torch.cat([tensor(g, "e_bootstrap"), tensor(g, "e_flow")[:rest]])
    labels = torch.cat([tensor(g, "labels")[:first], tensor(g, "labels")[:rest]])
    mask = torch.cat([torch.ones(first), tensor(g, "drop_mask")[:rest]])
    return x, e, labels, mask


def times_of(g):
    """t and r by the drawn integers."""
    steps = 2.0 ** tensor(g, "dt_base")
    first = len(g["k_bootstrap"])
    drawn = torch.cat([tensor(g, "k_bootstrap"), tensor(g, "k_flow")])[: len(steps)]
    assert len(drawn) >= first
    t = 1.0 - drawn / steps
    return t, t - 1.0 / steps


def objective_of(options):
    steps = options["denoise_timesteps"]
    target = EMATarget(name="main") if options["bootstrap_ema"] else OnlineTarget()
    if options["bootstrap_cfg"]:
        target = GuidedShortest(of=target, scale=options["cfg_scale"], steps=steps)
    return FlowMapMatching(
        driver=OwnStep(target=target),
        leg=ShortcutLeg(steps=steps, clamp=CLAMP),
        premetric=SquaredL2(),
        target=target,
        labels=DropEach(label_dropout=max(options["class_dropout_prob"], 1e-9)),
    )


def check_shortcut(case):
    g = load(case)
    options = json.loads(str(g["options_json"]))
    path = Path(Linear(sigma_min=LEFT_AT_DATA))
    average = GoldenFlowMap(g, suffix="_ema", path=path)
    model = GoldenFlowMap(g, path=path, averages={"main": average})
    objective = objective_of(options)

    x, e, labels, mask = batch(g, options)
    times = torch.stack(times_of(g), dim=1)
    assert_equal(times, torch.stack([tensor(g, "t"), tensor(g, "r")], dim=1))
    # A number of 0 drops the label where labels may be dropped, 1 keeps it.
    uniforms = 1.0 - mask[:, None].double()
    pairs = Pairs(x=x, e=e, conditions={"labels": labels}, uniforms=uniforms)

    leap = objective.leap(model, pairs, times, rng=torch.Generator())
    assert_equal(leap.x_t, tensor(g, "z"))
    null = options["num_classes"]
    used = leap.conditions["labels"]
    assert torch.equal(torch.where(used < 0, null, used), tensor(g, "labels_used").long())
    bootstrap = ~objective.leg.on_diagonal(leap)
    assert torch.equal(bootstrap.long(), tensor(g, "is_bootstrap").long())

    legs = Legs(objective.driver, objective.target, objective.diagonal)
    comparison = objective.leg.compare(model, leap, legs)
    assert_equal(comparison.target, tensor(g, "target"))
    rows = SquaredL2()(comparison.prediction - comparison.target)
    assert_equal(rows, tensor(g, "row_loss"))

    loss = objective.loss(model, pairs, times, rng=torch.Generator()).per_sample
    torch.testing.assert_close(loss, tensor(g, "row_loss").float())
    assert_equal(rows.mean(), tensor(g, "loss").squeeze())
    for name, gradient in model.gradients(rows.mean()).items():
        assert_equal(gradient, tensor(g, name))


CHECKS = {"shortcut": check_shortcut}
