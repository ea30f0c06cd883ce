import pytest
import torch

from flowexp.config.check import check
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
from flowexp.samplers.base import CountedModel

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


@pytest.mark.parametrize("given", ["labels", "tokens", "both"])
def test_labels_and_captions_are_dropped_alike(given):
    """-1 for indices and tokens, zeros for vectors; other conditions stay."""
    received = []

    class Recording(LabelledNetwork):
        def forward(self, x, c_noise, **conditions):
            received.append(conditions)
            return x

    model = FlowModel(Path(Linear()), network=Recording(), parameterization=VelocityPrediction())
    conditions = {
        "labels": {"labels": torch.eye(3), "shift": torch.ones(3, 4)},
        "tokens": {"tokens": torch.arange(6).reshape(3, 2)},
        "both": {"labels": LABELS, "tokens": torch.arange(6).reshape(3, 2)},
    }[given]
    guided = ClassifierFree(scale=2.0).wrap(model)
    guided.velocity(state(), torch.tensor(0.5, dtype=torch.float64), **conditions)
    for name, value in conditions.items():
        first, second = received[0][name].chunk(2)
        assert torch.equal(first, value)
        if name == "shift":
            assert torch.equal(second, value)
        else:
            nothing = 0 if value.is_floating_point() else -1
            assert torch.equal(second, torch.full_like(value, nothing))


@pytest.mark.parametrize("t", [0.4, [0.2, 0.5, 0.7]], ids=["scalar", "per_sample"])
@pytest.mark.parametrize("head", [VelocityPrediction(), NoisePrediction()], ids=type)
def test_only_the_first_channels_are_guided(head, t):
    model, everywhere, _ = models(head, Linear(), 3.0)
    first = ClassifierFree(scale=3.0, channels=3).wrap(model)
    t, x = torch.tensor(t, dtype=torch.float64), state()
    found = first.velocity(x, t, labels=LABELS)
    guided, plain = (m.velocity(x, t, labels=LABELS) for m in (everywhere, model))
    torch.testing.assert_close(found[:, :3], guided[:, :3], rtol=0, atol=1e-12)
    torch.testing.assert_close(found[:, 3:], plain[:, 3:], rtol=1e-6, atol=1e-6)
    assert float((guided[:, 3:] - plain[:, 3:]).abs().max()) > 1e-3
    all_four = ClassifierFree(scale=3.0, channels=4).wrap(model)
    assert torch.equal(all_four.velocity(x, t, labels=LABELS), guided)


def test_times_known_beforehand_give_the_same_with_some_channels():
    model, _, _ = models(VelocityPrediction(), Linear(), 3.0)
    first = ClassifierFree(scale=3.0, channels=2).wrap(model)
    times = torch.tensor([0.7, 0.3], dtype=torch.float64)
    for t, evaluate in zip(times, first.at(times), strict=True):
        expected = first.velocity(state(), t, labels=LABELS)
        found = evaluate(state(), labels=LABELS).velocity
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_channels_must_be_positive():
    with pytest.raises(ValueError, match="channels is 0"):
        ClassifierFree(scale=2.0, channels=0)


def test_a_model_beside_a_guided_one_is_guided_the_same():
    model, _, _ = models(VelocityPrediction(), Linear(), 3.0)
    other, _, _ = models(NoisePrediction(), Linear(), 3.0)
    guidance = ClassifierFree(scale=3.0, channels=2)
    t, x = torch.tensor(0.4, dtype=torch.float64), state()
    expected = guidance.wrap(other).velocity(x, t, labels=LABELS)
    counted = CountedModel(guidance.wrap(model))
    found = counted.alongside(other).velocity(x, t, labels=LABELS)
    assert torch.equal(found, expected)
    assert counted.calls == 0
    assert CountedModel(model).alongside(other) is other
    twice = ClassifierFree(scale=2.0).wrap(guidance.wrap(model))
    assert twice.alongside(other).evaluations_per_call == 4


class Given(torch.nn.Module):
    """Adds its conditions, which may be zeros for "none"."""

    def forward(self, x, c_noise, labels=None, image=None, mask=None):
        label = 0.0 if labels is None else labels[:, None].float()
        return torch.tanh(x) + image + 2.0 * mask + label


@pytest.mark.parametrize("without", [["image"], ["mask"], ["image", "mask"], ["labels", "mask"]])
def test_any_conditions_can_be_removed(without):
    """Those of ``without`` become "none" in the unconditional prediction, the others stay."""
    model = FlowModel(Path(Linear()), network=Given(), parameterization=VelocityPrediction())
    t, x = torch.tensor(0.4, dtype=torch.float64), state()
    given = {"image": torch.ones(3, 4), "mask": torch.full((3, 4), 0.5), "labels": LABELS}
    none = {"image": torch.zeros(3, 4), "mask": torch.zeros(3, 4), "labels": LABELS * 0 - 1}
    removed = given | {name: none[name] for name in without}
    v_c, v_u = model.velocity(x, t, **given), model.velocity(x, t, **removed)
    guided = ClassifierFree(scale=3.0, without=without).wrap(model)
    expected = v_u + 3.0 * (v_c - v_u)
    torch.testing.assert_close(guided.velocity(x, t, **given), expected, rtol=1e-6, atol=1e-6)
    assert guided.asks_without_label is ("labels" in without)


def test_what_is_removed_must_be_given_and_named():
    model = FlowModel(Path(Linear()), network=Given(), parameterization=VelocityPrediction())
    guided = ClassifierFree(scale=2.0, without=["mask"]).wrap(model)
    with pytest.raises(ValueError, match="needs mask, but the model is called without"):
        guided.velocity(state(), torch.tensor(0.5, dtype=torch.float64), image=torch.ones(3, 4))
    with pytest.raises(ValueError, match="without is empty"):
        ClassifierFree(scale=2.0, without=[])


DROPPED = ["task.inputs.image.dropout=0.1", "task.inputs.mask.dropout=0.1"]


@pytest.mark.parametrize(
    ("without", "more", "remark"),
    [
        ("[image,mask]", DROPPED, None),
        ("[image]", ["task.inputs.image.dropout=0.1"], None),
        ("[image,mask]", [], "it is always given image"),
        ("[image]", DROPPED, "in training mask was dropped with them"),
        ("[labels,tokens]", ["network.label_dropout=0.1"], None),
        ("[image]", ["task.inputs.image.dropout=0.1", "guidance.scale=1"], None),
    ],
)
def test_a_warning_where_the_training_never_removed_them(without, more, remark):
    guided = ["guidance=cfg", f"guidance.without={without}"]
    checked = check("train", ["task=inpainting", *guided, *more])
    assert checked.problems == []
    found = [str(r) for r in checked.remarks if "prediction without" in str(r)]
    assert len(found) == (remark is not None), checked.remarks
    assert remark is None or remark in found[0]


def test_conditions_that_the_network_does_not_take_are_refused():
    overrides = ["task=inpainting", "guidance=cfg", "guidance.without=[image,map]"]
    problems = [str(problem) for problem in check("train", overrides).problems]
    expected = "with and without map, but the network takes image,mask."
    assert len(problems) == 1
    assert expected in problems[0]
    assert problems[0].startswith("guidance.without:")
