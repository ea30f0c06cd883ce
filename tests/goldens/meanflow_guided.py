"""Goldens of MeanFlow: the guided target."""

import numpy as np
import torch

from flowexp.couplings import Pairs
from flowexp.models import Model
from flowexp.objectives import FlowMapMatching, SumOfSquares
from flowexp.objectives.flow_map import ConstantMix, DataVelocity, Guided, Legs, Tangent
from flowexp.paths import Linear, Path, Prediction
from tests.goldens.flow_maps_network import load, tensor


class TwoNetworks(Model):
    """u with label; without label another matrix, and nothing that depends on the gap."""

    is_flow_map = True
    time_range = (0.0, 1.0)

    def __init__(self, g):
        self.path = Path(Linear())
        self.g = {name: tensor(g, name) for name in ("W", "W_uncond", "b", "c", "gain")}

    def average_velocity(self, x_t, t, r, *, labels):
        g, (flat, t, h) = self.g, (x_t.flatten(1), t[:, None], (t - r)[:, None])
        labelled = (labels >= 0)[:, None]
        inner = torch.where(labelled, flat @ g["W"].T, flat @ g["W_uncond"].T) + g["b"] * t
        gap = g["c"] * torch.sin(2.0 * h) + 0.3 * h * flat
        u = g["gain"] * torch.tanh(inner) * (1.0 + t**2 / 2.0) + labelled * gap
        return u.reshape(x_t.shape)

    def predict(self, x_t, t, **conditions):
        velocity = self.average_velocity(x_t, t, t, **conditions)
        return Prediction.of_velocity(self.path, x_t, t, velocity)


def check_target_cfg(case):
    g = load(case)
    model, x = TwoNetworks(g), tensor(g, "x")
    suffixes = [name.removeprefix("vg_") for name in g if name.startswith("vg_")]
    assert suffixes
    for suffix in suffixes:
        omega, kappa = (float(part[1:]) for part in suffix.split("_"))
        start, end = g[f"interval_{suffix}"].tolist()
        # The reference rounds omega, and only that, to float32.
        omega = float(np.float32(omega))
        mix = ConstantMix(omega=omega, kappa=kappa, start=start, end=end)
        driver = Guided(of=DataVelocity(), mix=mix)
        objective = FlowMapMatching(
            driver=driver, leg=Tangent(), premetric=SumOfSquares(factor=1.0)
        )
        labels = {"labels": torch.zeros(len(x), dtype=torch.int64)}
        pairs = Pairs(x, tensor(g, "e"), labels, uniforms=torch.zeros(len(x), 0))
        times = torch.stack([tensor(g, "t"), tensor(g, "r")], dim=1)
        leap = objective.leap(model, pairs, times, rng=torch.Generator())
        now = leap.instant()
        target = objective.leg.compare(model, leap, Legs(driver, objective.target, driver)).target
        for found, name in (
            (leap.x_t, "z"),
            (leap.velocity, "v"),
            (model.average_velocity(now.x_t, now.t, now.r, **now.conditions), "v_cond"),
            (driver.predicted.velocity(model, leap.unlabelled(), leap.t), "v_uncond"),
            (driver.velocity(model, leap, leap.t), f"vg_{suffix}"),
            (target, f"utgt_{suffix}"),
        ):
            torch.testing.assert_close(found, tensor(g, name), rtol=1e-8, atol=1e-10)


CHECKS = {"target_cfg": check_target_cfg}
