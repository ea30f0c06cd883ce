"""FlowModel: one face over path, network and parameterization."""

import pytest
import torch
from torch import nn

from flowexp.guidance import ClassifierFree
from flowexp.models import FlowModel, WrappedModel
from flowexp.parameterizations import (
    DataPrediction,
    EDMPreconditioning,
    EulerJump,
    FlowMap,
    IDDPMPreconditioning,
    NoisePrediction,
    PoissonFieldPrediction,
    VelocityPrediction,
    VEPreconditioning,
    VPPreconditioning,
)
from flowexp.parameterizations.direct import ReversedVelocityPrediction
from flowexp.paths import VE, VP, Cosine, Linear, Path
from flowexp.samplers import CountedModel


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
    """A network with the exact output gives the same velocity, whatever it predicts."""
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


EVERY_PARAMETERIZATION = [
    VelocityPrediction(),
    ReversedVelocityPrediction(),
    NoisePrediction(),
    DataPrediction(),
    EDMPreconditioning(),
    IDDPMPreconditioning(),
    VEPreconditioning(),
    VPPreconditioning(),
    PoissonFieldPrediction(),
]


class Wave(nn.Module):
    """A network that depends on all it is given; optionally twice as many channels."""

    def __init__(self, copies=1):
        super().__init__()
        self.copies = copies

    def forward(self, x, c_noise, labels=None):
        level = torch.tanh(c_noise)[:, None]
        shift = 0.0 if labels is None else 0.1 * labels[:, None]
        out = torch.sin(x + level + shift)
        return torch.cat([out] * self.copies, dim=1)


@pytest.mark.parametrize("rule", EVERY_PARAMETERIZATION, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize(
    "schedule", [VE(), VP(), Linear(), Cosine()], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_model_at_times_is_the_model(rule, schedule, dtype):
    """What is prepared for a whole grid gives the predictions of single calls to rounding."""
    copies = 2 if isinstance(rule, IDDPMPreconditioning) else 1
    model = FlowModel(Path(schedule), network=Wave(copies), parameterization=rule)
    low, high = model.time_range
    times = torch.linspace(high, max(low, 1e-3), 7, dtype=torch.float64)
    # A field's length stays below the one of its normalisation.
    x = state(dtype) * (0.1 if isinstance(rule, PoissonFieldPrediction) else 1.0)
    tolerance = 1e-11 if dtype == torch.float64 else 2e-5
    for t, evaluate in zip(times, model.at(times), strict=True):
        single, prepared = model.predict(x, t), evaluate(x)
        for kind in ("velocity", "data", "noise", "score"):
            a, b = getattr(single, kind), getattr(prepared, kind)
            assert b.dtype == dtype
            torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance * float(a.abs().max()))
        e, v = 0.7 * single.noise, -1.3 * single.velocity
        size = tolerance * float(e.abs().max() + v.abs().max())
        for found in (single, prepared):
            both = found.combined(noise=0.7, velocity=-1.3)
            torch.testing.assert_close(both, e + v, rtol=tolerance, atol=size)
        assert float(prepared.coefficients.sigma) == pytest.approx(float(single.coefficients.sigma))


@pytest.mark.parametrize("rule", EVERY_PARAMETERIZATION, ids=lambda r: type(r).__name__)
def test_the_model_at_times_of_its_own_for_each_sample(rule):
    copies = 2 if isinstance(rule, IDDPMPreconditioning) else 1
    model = FlowModel(Path(VP()), network=Wave(copies), parameterization=rule)
    low, high = model.time_range
    times = torch.linspace(max(low, 0.1), 0.9 * high, 8, dtype=torch.float64).reshape(2, 4)
    x = state() * (0.1 if isinstance(rule, PoissonFieldPrediction) else 1.0)
    for t, evaluate in zip(times, model.at(times), strict=True):
        single, prepared = model.predict(x, t), evaluate(x)
        for kind in ("velocity", "data", "noise", "score"):
            torch.testing.assert_close(getattr(prepared, kind), getattr(single, kind))
    labels = torch.arange(4)
    if isinstance(rule, VelocityPrediction):
        guided = ClassifierFree(scale=2.0).wrap(model)
        prepared = guided.at(times)[1](x, labels=labels)
        torch.testing.assert_close(
            prepared.velocity, guided.predict(x, times[1], labels=labels).velocity
        )


def test_wrappers_hand_the_prepared_times_on():
    """Counting and guidance see the same calls as without preparation."""
    network = Recorder()
    model = FlowModel(Path(Linear()), network=network, parameterization=VelocityPrediction())
    counted = CountedModel(ClassifierFree(scale=2.5).wrap(model))
    times = torch.tensor([1.0, 0.5], dtype=torch.float64)
    labels = torch.arange(4)
    for t, evaluate in zip(times, counted.at(times), strict=True):
        prepared = evaluate(state(), labels=labels)
        single = counted.predict(state(), t, labels=labels)
        torch.testing.assert_close(prepared.velocity, single.velocity, rtol=0, atol=1e-14)
    assert counted.calls == 4
    assert counted.evaluations == 8
    assert all(len(x) == 8 for x, _, _ in network.calls)
    assert network.calls[0][2]["labels"].tolist() == [0, 1, 2, 3, -1, -1, -1, -1]


def test_a_subclass_that_overrides_predict_is_asked_through_it():
    class Doubled(FlowModel):
        def predict(self, x_t, t, **conditions):
            return super().predict(2.0 * x_t, t, **conditions)

    model = Doubled(Path(Linear()), network=Recorder(), parameterization=VelocityPrediction())
    evaluate = model.at(torch.tensor([0.5], dtype=torch.float64))[0]
    torch.testing.assert_close(evaluate(state()).velocity, 2.0 * state().float().double())


def test_at_carries_gradients():
    model = FlowModel(Path(VP()), network=Wave(), parameterization=EDMPreconditioning())
    x = state().requires_grad_()
    t = torch.tensor([0.4], dtype=torch.float64)
    prepared = torch.autograd.grad(model.at(t)[0](x).data.sum(), x)[0]
    single = torch.autograd.grad(model.predict(x, t[0]).data.sum(), x)[0]
    torch.testing.assert_close(prepared, single)


def two_times(**options):
    rule = FlowMap(of=VelocityPrediction(), jump=EulerJump(), **options)
    return FlowModel(Path(Linear()), network=Wave(), parameterization=rule)


class Plain(WrappedModel):
    """A wrapper that knows predictions at one time only."""

    def predict(self, x_t, t, **conditions):
        return self.model.predict(x_t, t, **conditions)


def test_a_model_of_two_times_predicts_at_one_what_the_same_weights_do():
    """``predict`` is u(x, t, t), bit for bit, in single calls and prepared ones."""
    t = torch.tensor([0.3, 0.9, 0.5, 1.0], dtype=torch.float64)
    one = FlowModel(Path(Linear()), network=Wave(), parameterization=VelocityPrediction())
    model = two_times(conditions_on=[])
    expected = one.velocity(state(), t)
    assert torch.equal(model.velocity(state(), t), expected)
    assert torch.equal(model.average_velocity(state(), t, t), expected)
    assert torch.equal(model.at(t[:1])[0](state()).velocity, one.at(t[:1])[0](state()).velocity)


def test_counting_sees_jumps():
    t, r = torch.tensor(0.9), torch.tensor(0.2)
    model = two_times(conditions_on=[])
    counted = CountedModel(model)
    jumped, average = counted.flow_map(state(), t, r), counted.average_velocity(state(), t, r)
    assert torch.equal(jumped, model.flow_map(state(), t, r))
    torch.testing.assert_close(jumped, state() - 0.7 * average, rtol=1e-6, atol=1e-6)
    assert counted.evaluations == 2
    guided = CountedModel(ClassifierFree(scale=2.0).wrap(model))
    guided.flow_map(state(), t, r, labels=torch.arange(4))
    assert guided.evaluations == 2


def test_wrappers_have_two_times_if_they_and_their_model_do():
    one = FlowModel(Path(Linear()), network=Wave(), parameterization=VelocityPrediction())
    two = two_times()
    assert [CountedModel(model).is_flow_map for model in (one, two, Plain(two))] == [
        False,
        True,
        False,
    ]
    assert ClassifierFree(scale=2.0).wrap(two).is_flow_map
    assert CountedModel(two_times(conditions_on=[])).maps_to_data_only
    for model in (one, Plain(two)):
        with pytest.raises(TypeError, match=f"{type(model).__name__} has no second time"):
            model.flow_map(state(), torch.tensor(0.5), torch.tensor(0.0))


class Preparing(Recorder):
    """Doubles the condition ``image`` ahead of calls."""

    def prepared(self, **conditions):
        return {name: 2 * c if name == "image" else c for name, c in conditions.items()}


def test_conditions_are_prepared_by_the_network_within_all_wrappers():
    given = {"labels": torch.zeros(4, dtype=torch.int64), "image": torch.ones(4, 1)}
    rule = VelocityPrediction()
    plain = FlowModel(Path(Linear()), network=Recorder(), parameterization=rule)
    assert plain.prepared(**given) == given
    model = FlowModel(Path(Linear()), network=Preparing(), parameterization=rule)
    for wrapped in (model, CountedModel(model), ClassifierFree(scale=2.0).wrap(model)):
        found = wrapped.prepared(**given)
        assert found["labels"] is given["labels"]
        assert torch.equal(found["image"], 2 * given["image"])
