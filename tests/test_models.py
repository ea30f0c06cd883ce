"""FlowModel: one face over path, network and parameterization."""

import pytest
import torch
from torch import nn

from flowexp.models import FlowModel
from flowexp.parameterizations import (
    DataPrediction,
    EDMPreconditioning,
    NoisePrediction,
    VelocityPrediction,
)
from flowexp.paths import VE, VP, Linear, Path


class Recorder(nn.Module):
    """Remembers what it was given and returns a fixed output."""

    def __init__(self, output=None):
        super().__init__()
        self.output = output
        self.calls = []

    def forward(self, x, c_noise, **conditions):
        self.calls.append((x, c_noise, conditions))
        return x if self.output is None else self.output


def state(dtype=torch.float64, n=4):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_network_runs_in_float32_and_predictions_keep_the_state_dtype(dtype):
    network = Recorder()
    model = FlowModel(Path(VE()), network=network, parameterization=EDMPreconditioning())
    labels = torch.arange(4)
    prediction = model.predict(state(dtype), torch.tensor(2.0), labels=labels)
    x, c_noise, conditions = network.calls[0]
    assert x.dtype == c_noise.dtype == torch.float32
    assert c_noise.shape == (4,)
    assert conditions["labels"] is labels
    assert {prediction.data.dtype, prediction.noise.dtype, prediction.velocity.dtype} == {dtype}
    torch.testing.assert_close(x, (state() / (4.0 + 0.25) ** 0.5).float())
    torch.testing.assert_close(c_noise, torch.full((4,), 2.0).log() / 4)


def test_all_predictions_come_from_one_call():
    network = Recorder()
    model = FlowModel(Path(VP()), network=network, parameterization=VelocityPrediction())
    prediction = model.predict(state(), torch.tensor(0.5))
    _ = prediction.velocity, prediction.data, prediction.noise, prediction.score
    assert len(network.calls) == 1


@pytest.mark.parametrize(
    ("parameterization", "kind"),
    [(VelocityPrediction(), "velocity"), (NoisePrediction(), "noise"), (DataPrediction(), "data")],
)
def test_ideal_networks_agree_through_every_parameterization(parameterization, kind):
    """A network that answers the truth gives the same velocity, whatever it is asked for."""
    path = Path(Linear())
    x, e = state(), state().flip(0)
    t = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    point = path.point(x, e, t)
    network = Recorder(getattr(point, kind))
    model = FlowModel(path, network=network, parameterization=parameterization)
    torch.testing.assert_close(model.velocity(point.x_t, t), point.velocity)
    torch.testing.assert_close(model.denoise(point.x_t, t), x)
    torch.testing.assert_close(model.noise(point.x_t, t), e)
    torch.testing.assert_close(model.score(point.x_t, t), -e / t[:, None])


def test_score_is_refused_on_a_student_t_source():
    path = Path(VE(), D=64)
    model = FlowModel(path, network=Recorder(), parameterization=EDMPreconditioning())
    assert model.velocity(state(), torch.tensor(1.0)).isfinite().all()
    with pytest.raises(ValueError, match="D=64"):
        model.score(state(), torch.tensor(1.0))


def test_time_range_is_that_of_the_parameterization():
    model = FlowModel(Path(Linear()), network=Recorder(), parameterization=EDMPreconditioning())
    assert model.time_range == EDMPreconditioning().time_range(Linear())


def test_disjoint_time_ranges_are_refused():
    narrow = EDMPreconditioning(sigma_min=0.002, sigma_max=0.01)
    with pytest.raises(ValueError, match=r"EDMPreconditioning.*VE"):
        FlowModel(Path(VE(t_min=0.02)), network=Recorder(), parameterization=narrow)
