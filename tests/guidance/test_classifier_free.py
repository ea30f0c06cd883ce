import pytest
import torch

from flowexp.guidance import ClassifierFree, NoGuidance
from flowexp.models import FlowModel, Model
from flowexp.parameterizations import (
    DataPrediction,
    EDMPreconditioning,
    NoisePrediction,
    VelocityPrediction,
)
from flowexp.paths import VE, Linear, Path
from flowexp.samplers import EDMGrid, EDMHeun, Euler, Natural

HEADS = [VelocityPrediction(), NoisePrediction(), DataPrediction(), EDMPreconditioning()]
LABELS = torch.tensor([2, 0, 1])


class LabelledNetwork(torch.nn.Module):
    """Depends on the state, the time, the label (-1 = none) and a further condition."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, c_noise, labels=None, shift=None):
        self.calls.append(x.shape[0])
        out = torch.tanh(x + 0.3 * torch.sin(c_noise)[:, None] + labels[:, None].float())
        return out if shift is None else out + shift


def models(head, schedule, scale):
    network = LabelledNetwork()
    model = FlowModel(Path(schedule), network=network, parameterization=head)
    return model, ClassifierFree(scale=scale).wrap(model), network


def state(seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(3, 4, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("t", [0.4, [0.2, 0.5, 0.7]], ids=["scalar", "per_sample"])
@pytest.mark.parametrize("name", ["velocity", "data", "noise", "score"])
@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0, 4.0])
def test_every_prediction_is_combined(head, name, t, scale):
    """v_u + s (v_c - v_u), and the same for the other predictions; s = 0, 1 are the two models."""
    model, guided, _ = models(head, Linear(), scale)
    t, x = torch.tensor(t, dtype=torch.float64), state()
    shift = torch.linspace(-1, 1, 12, dtype=torch.float32).reshape(3, 4)
    ask = {
        who: getattr(model.predict(x, t, labels=labels, shift=shift), name)
        for who, labels in {"c": LABELS, "u": torch.full_like(LABELS, -1)}.items()
    }
    expected = ask["u"] + scale * (ask["c"] - ask["u"])
    actual = getattr(guided.predict(x, t, labels=LABELS, shift=shift), name)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    assert float((ask["c"] - ask["u"]).abs().max()) > 1e-3


def test_one_doubled_batch_counts_two():
    _, guided, network = models(EDMPreconditioning(), VE(), 2.0)
    samples = EDMHeun(steps=4, time_grid=EDMGrid()).sample(guided, state().float(), labels=LABELS)
    assert network.calls == [6] * 7
    assert samples.nfe.tolist() == [14, 14, 14]


def test_scale_one_is_the_model_itself_at_its_cost():
    model, guided, network = models(VelocityPrediction(), Linear(), 1.0)
    assert guided is model
    samples = Euler(steps=4, time_grid=Natural()).sample(guided, state(), labels=LABELS)
    assert network.calls == [3] * 4
    assert samples.nfe.tolist() == [4, 4, 4]


def test_no_guidance_is_the_identity():
    model, _, _ = models(VelocityPrediction(), Linear(), 2.0)
    assert NoGuidance().wrap(model) is model


def test_face():
    model, guided, _ = models(EDMPreconditioning(), VE(), 2.0)
    assert isinstance(guided, Model)
    assert guided.path is model.path
    assert guided.time_range == model.time_range
    assert ClassifierFree(scale=3.0).wrap(guided).evaluations_per_call == 4


def test_labels_are_needed():
    _, guided, _ = models(VelocityPrediction(), Linear(), 2.0)
    with pytest.raises(ValueError, match="needs labels"):
        guided.velocity(state(), torch.tensor(0.5))


def test_scale_must_be_finite():
    with pytest.raises(ValueError, match="scale is nan"):
        ClassifierFree(scale=float("nan"))
