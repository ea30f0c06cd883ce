import math

import pytest
import torch
from torch import nn

from flowexp.guidance import Embedded
from flowexp.models import FlowModel
from flowexp.parameterizations import EulerJump, FlowMap, VelocityPrediction
from flowexp.paths import Linear, Path
from flowexp.requirements import Parts
from flowexp.samplers import FlowMapSampler
from flowexp.samplers.base import CountedModel

INPUTS = ("gap", "guidance_scale", "guidance_start", "guidance_end")


class Recording(nn.Module):
    """Records its inputs; both halves of its output are known."""

    scalars = INPUTS

    def __init__(self):
        super().__init__()
        self.received = []
        self.head = 7.0

    def forward(self, x, c_noise, labels=None, augment_labels=None, scalars=None):
        self.received.append(dict(scalars))
        weights = sum(INPUTS.index(name) * value for name, value in scalars.items())
        return torch.cat([x * weights[:, None], torch.full_like(x, self.head)], dim=1)


def model_with_inputs(conditions_on=INPUTS):
    rule = FlowMap(
        of=VelocityPrediction(), jump=EulerJump(), conditions_on=conditions_on, velocity_head=True
    )
    return FlowModel(Path(Linear()), network=Recording(), parameterization=rule)


X = torch.tensor([[1.0], [2.0]], dtype=torch.float64)


def received(model):
    """The numbers of the last call; those that are left out are 0 for the network."""
    nothing = {name: [0.0, 0.0] for name in INPUTS}
    return nothing | {name: value.tolist() for name, value in model.network.received[-1].items()}


def at(*times):
    return torch.tensor(times, dtype=torch.float64)


def test_jumps_pass_scale_and_interval_to_the_network():
    model = model_with_inputs()
    Embedded(scale=4.0, interval=(0.25, 0.75)).wrap(model).average_velocity(X, at(1, 0.5), at(0, 0))
    assert received(model) == {
        "gap": [1.0, 0.5],
        "guidance_scale": [0.75, 0.75],
        "guidance_start": [0.25, 0.25],
        "guidance_end": [0.25, 0.25],
    }


def test_velocities_at_one_time_are_those_of_training():
    model = model_with_inputs()
    guided = Embedded(scale=4.0, interval=(0.25, 0.75)).wrap(model)
    t = at(0.9, 0.5)
    velocity = guided.predict(X, t).velocity
    expected = {
        "gap": [0.0, 0.0],
        "guidance_scale": [0.0, 0.75],
        "guidance_start": [0.0, 0.0],
        "guidance_end": [0.0, 0.0],
    }
    assert received(model) == expected
    guided.average_velocity(X, t, t)
    assert received(model) == expected
    later = guided.at(at(0.9, 0.5))[1](X).velocity
    assert later[1].equal(velocity[1])
    assert guided.alongside(model) is not model


def test_a_jump_is_one_evaluation_and_never_sees_the_head():
    model = model_with_inputs()
    counted = CountedModel(Embedded(scale=2.0).wrap(model))
    assert counted.evaluations_per_call == 1
    states = [FlowMapSampler(steps=2).sample(counted, X).x]
    assert counted.calls == 2
    model.network.head = -100.0
    states += [FlowMapSampler(steps=2).sample(counted, X).x]
    assert states[0].equal(states[1])


def test_scale_one_is_the_model_itself():
    model = model_with_inputs()
    one = Embedded(scale=1.0).wrap(model)
    assert one.velocity(X, at(0.3, 0.6)).equal(model.velocity(X, at(0.3, 0.6), **zeros()))


def zeros():
    return {"guidance_scale": torch.ones(2), "guidance_end": torch.ones(2)}


@pytest.mark.parametrize(
    ("conditions_on", "interval", "key"),
    [
        (INPUTS, (0.2, 0.8), None),
        (("gap",), (0.0, 1.0), "."),
        (("gap", "guidance_scale"), (0.0, 1.0), None),
        (("gap", "guidance_scale"), (0.2, 1.0), ".interval"),
    ],
)
def test_models_trained_without_guidance_inputs_are_refused(conditions_on, interval, key):
    rule = FlowMap(of=VelocityPrediction(), jump=EulerJump(), conditions_on=conditions_on)
    unmet = list(Embedded(scale=2.0, interval=interval).needs(Parts(parameterization=rule)))
    assert [found.key for found in unmet] == ([] if key is None else [key])


@pytest.mark.parametrize("scale", [0.5, math.inf, math.nan])
def test_bad_scales(scale):
    with pytest.raises(ValueError, match=f"scale is {scale}"):
        Embedded(scale=scale)


@pytest.mark.parametrize("interval", [(0.5,), (0.5, 0.5), (-0.1, 1.0), (0.0, 1.1)])
def test_bad_intervals(interval):
    with pytest.raises(ValueError, match="interval is"):
        Embedded(scale=2.0, interval=interval)
