"""Jumps of a flow map along a grid: exact maps, counts, restarts, refusals, and the way back."""

import pytest
import torch
from torch import nn

from flowexp.errors import UsageError
from flowexp.guidance import ClassifierFree, DynamicThresholding
from flowexp.models import FlowModel
from flowexp.parameterizations import DDIMJump, EDMPreconditioning, EulerJump, FlowMap
from flowexp.parameterizations import VelocityPrediction as Velocity
from flowexp.paths import VE, Linear, Path, Trigonometric
from flowexp.pipeline import Pipeline
from flowexp.samplers import (
    DDIM,
    DormandPrince,
    Editing,
    FlowMapSampler,
    Given,
    Heun,
    Inversion,
    Natural,
    Uniform,
)
from flowexp.seeding import SampleNoise
from tests.objectives.flow_map.exact import GaussianMap, MixtureMap
from tests.refusals import refusal_of

F64 = torch.float64


class Network(nn.Module):
    """Depends on all its inputs: state, time, label, gap."""

    label_dim = 3

    def forward(self, x, c_noise, labels=None, scalars=None):
        time = c_noise + (0.0 if scalars is None else 0.7 * scalars["gap"].float())
        shift = 0.0 if labels is None else 0.2 * labels.float()[:, None]
        return torch.tanh(x.flip(1) + torch.sin(time)[:, None] + shift)


def two_times(schedule=None, *, conditions_on=("gap",), of=None, jump=None, path=None):
    rule = FlowMap(of=of or Velocity(), jump=jump or EulerJump(), conditions_on=conditions_on)
    path = path or Path(schedule or Linear())
    return FlowModel(path, network=Network(), parameterization=rule)


def one_time(schedule=None):
    return FlowModel(Path(schedule or Linear()), network=Network(), parameterization=Velocity())


def consistency():
    return two_times(VE(), conditions_on=(), of=EDMPreconditioning(), jump=DDIMJump())


def draws(n=5, d=3, *, seed=0, dtype=F64):
    return torch.randn(n, d, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def mixture(schedule):
    return MixtureMap(Path(schedule), w=[0.4, 0.6], m=[-1.0, 0.8], c=[0.3, 0.2])


EXACT = {
    "gaussian": GaussianMap(Path(Trigonometric()), mean=[0.3], std=[0.5]),
    "mixture": mixture(Linear()),
    "mixture-ve": mixture(VE()),
}


@pytest.mark.parametrize("model", EXACT.values(), ids=EXACT)
def test_an_exact_map_gives_the_same_sample_in_any_number_of_jumps(model):
    one = FlowMapSampler(steps=1).sample(model, draws(d=1))
    high = model.time_range[1]
    for steps, grid in ((2, None), (5, Natural()), (3, Given(values=[high, 0.6, 0.59, 0.0]))):
        found = FlowMapSampler(steps=steps, time_grid=grid).sample(model, draws(d=1))
        torch.testing.assert_close(found.x, one.x, rtol=1e-9, atol=1e-9)
        assert found.nfe.tolist() == [steps] * 5


def test_restarts_of_an_exact_map_keep_its_distribution():
    """Mean and variance within 4.5 standard errors: false alarms in 1 of 70,000 runs."""
    n, model = 4000, EXACT["gaussian"]
    sampler = FlowMapSampler(steps=3, noise="restart")
    x = sampler.sample(model, draws(n, 1), noise=SampleNoise(range(n))).x
    assert abs(float(x.mean()) - 0.3) < 4.5 * 0.5 / n**0.5
    assert abs(float(x.var()) / 0.25 - 1.0) < 4.5 * (2.0 / n) ** 0.5


@pytest.mark.parametrize("noise", [None, "restart"])
def test_guidance_doubles_the_evaluations_of_a_jump(noise):
    sampler = FlowMapSampler(steps=4, noise=noise)
    model, labels = two_times(), torch.tensor([0, 1, 2, 1, 0])
    for tested, nfe in ((model, 4), (ClassifierFree(scale=2.0).wrap(model), 8)):
        found = sampler.sample(tested, draws(), noise=SampleNoise(range(5)), labels=labels)
        assert found.nfe.tolist() == [nfe] * 5


@pytest.mark.parametrize("jump", [EulerJump(), DDIMJump()])
@pytest.mark.parametrize("t", [torch.tensor(0.9), torch.tensor([0.9, 0.5, 0.7, 1.0, 0.3])])
def test_guided_jumps_are_those_between_the_two_models(jump, t):
    model, labels = two_times(Trigonometric(), jump=jump), torch.tensor([0, 1, 2, 1, 0])
    guided = ClassifierFree(scale=3.0).wrap(model)
    with_label = model.flow_map(draws(), t, 0.3 * t, labels=labels)
    without = model.flow_map(draws(), t, 0.3 * t, labels=torch.full_like(labels, -1))
    found = guided.flow_map(draws(), t, 0.3 * t, labels=labels)
    torch.testing.assert_close(found, without + 3.0 * (with_label - without), rtol=1e-6, atol=1e-6)


def test_a_sample_does_not_depend_on_its_batch():
    pipe = Pipeline(model=two_times(), sampler=FlowMapSampler(steps=3, noise="restart"), shape=(3,))
    (together,) = pipe.batches(range(7))
    for size in (1, 3):
        small = torch.cat([batch.x for batch in pipe.replace(batch_size=size).batches(range(7))])
        torch.testing.assert_close(small, together.x, rtol=0.0, atol=1e-6)


def test_restarts_jump_to_the_data_and_renoise_to_the_given_times():
    """The multistep sampling of consistency models, with the published time of two steps."""
    model, fresh, seen = consistency(), draws(seed=1), []
    sampler = FlowMapSampler(steps=2, time_grid=Given(values=[80.0, 0.821, 0.0]), noise="restart")
    found = sampler.sample(
        model, draws(), noise=lambda step, like: fresh, on_step=lambda t, x: seen.append((t, x))
    )
    t, middle = torch.tensor(80.0, dtype=F64), torch.tensor(0.821, dtype=F64)
    again = model.denoise(80.0 * draws(), t) + 0.821 * fresh
    assert [float(time) for time, _ in seen] == [80.0, 0.821, 0.0]
    torch.testing.assert_close(seen[1][1], again)
    torch.testing.assert_close(found.x, model.denoise(again, middle))
    assert found.nfe.tolist() == [2] * 5


def test_the_last_restart_adds_no_noise():
    grid = Uniform(t_end=0.1)
    ends = [
        FlowMapSampler(steps=1, time_grid=grid, noise=noise).sample(two_times(), draws()).x
        for noise in ("restart", None)
    ]
    data = two_times().flow_map(draws(), torch.tensor(1.0), torch.tensor(0.0))
    torch.testing.assert_close(ends[0], data)
    assert not torch.allclose(ends[1], data)


@pytest.mark.parametrize(
    "sampler", [Heun(steps=4), DDIM(steps=3, eta=1.0), DormandPrince()], ids=lambda s: s.describe()
)
def test_other_samplers_run_on_the_velocity_of_the_same_weights(sampler):
    """``predict`` is u(x, t, t), for which the network receives the gap 0."""
    one, two = (
        sampler.sample(model, draws(), noise=SampleNoise(range(5)))
        for model in (one_time(), two_times())
    )
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.nfe, two.nfe)


def test_the_protocol_names_grid_and_restarts():
    words = {
        FlowMapSampler(steps=1).describe(): "FlowMapSampler, 1 steps",
        FlowMapSampler(steps=2, noise="restart").describe(): "FlowMapSampler, 2 steps, restarts",
        FlowMapSampler(
            steps=2, time_grid=Given(values=[80, 0.821, 0]), noise="restart"
        ).describe(): "FlowMapSampler, 2 steps, Given(values=[80.0, 0.821, 0.0]), restarts",
        FlowMapSampler(steps=4, time_grid=Uniform()).describe(): (
            "FlowMapSampler, 4 steps, Uniform(t_end=0.0)"
        ),
    }
    for found, expected in words.items():
        assert found == expected


NO_MAP = "jumps with a flow map, but FlowModel has no second time. Use an ODE sampler"
ENDS = "jumps between times, but a consistency model only jumps to the data. Set sampler.noise=res"
NO_VELOCITY = (
    "Heun follows the velocity of a model, but a consistency model has none. Use sampler=f"
)


@pytest.mark.parametrize(
    ("sampler", "model", "words"),
    [
        (FlowMapSampler(steps=1), one_time(), NO_MAP),
        (FlowMapSampler(steps=2), consistency(), ENDS),
        (Heun(steps=2), consistency(), NO_VELOCITY),
    ],
)
def test_models_that_do_not_fit_are_refused(sampler, model, words):
    with pytest.raises(UsageError) as refused:
        Pipeline(model=model, sampler=sampler, shape=(3,))
    assert words in f"{refused.value.problem} {refused.value.remedy}"
    needs = refusal_of(sampler, parameterization=model.parameterization)
    assert needs is not None
    assert needs.startswith(".")
    assert words[:20] in needs


def test_consistency_models_are_sampled_in_one_jump_or_with_restarts():
    for sampler in (FlowMapSampler(steps=1), FlowMapSampler(steps=3, noise="restart")):
        assert refusal_of(sampler, parameterization=consistency().parameterization) is None
        pipe = Pipeline(model=consistency(), sampler=sampler, shape=(3,))
        (batch,) = pipe.batches([0, 1])
        assert batch.nfe.tolist() == [sampler.steps] * 2


def test_restarts_need_gaussian_noise():
    heavy = Path(Linear(), D=4.0)
    words = "restarts add Gaussian noise, which the StudentT source of path.D=4 is not."
    refused = refusal_of(FlowMapSampler(steps=2, noise="restart"), path=heavy)
    assert refused == f".noise: {words} Set sampler.noise=null, or path.D=inf."
    for sampler in (FlowMapSampler(steps=1, noise="restart"), FlowMapSampler(steps=4)):
        assert refusal_of(sampler, path=heavy) is None
        assert sampler.sample(two_times(path=heavy), draws()).x.isfinite().all()


def test_thresholds_are_for_predictions_at_one_time():
    guidance = DynamicThresholding()
    words = "clips the data predicted at one time, but FlowMapSampler jumps between two."
    assert words in str(refusal_of(guidance, sampler=FlowMapSampler(steps=1)))
    assert refusal_of(guidance, sampler=Heun(steps=1)) is None
    with pytest.raises(UsageError, match="_ThresholdedModel has no second time"):
        FlowMapSampler(steps=1).sample(guidance.wrap(two_times()), draws())
    Heun(steps=2).check(guidance.wrap(two_times()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise": "churn"}, "noise is 'churn'; expected restart or null"),
        ({"analytic_first_step": True}, "a jump has no analytic form"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=words):
        FlowMapSampler(steps=2, **options)


def test_restarts_ask_for_noise():
    with pytest.raises(ValueError, match="FlowMapSampler adds noise at each step, but noise is No"):
        FlowMapSampler(steps=2, noise="restart").sample(two_times(), draws())


@pytest.mark.parametrize("model", EXACT.values(), ids=EXACT)
def test_the_velocity_of_a_flow_map_leads_back_to_the_source(model):
    """Jump to the data and walk back along u(x, t, t)."""
    e = draws(d=1)
    data = FlowMapSampler(steps=2).sample(model, e).x
    found = Inversion(DormandPrince(rtol=1e-8, atol=1e-8)).invert(model, data)
    torch.testing.assert_close(found.x, e, rtol=1e-4, atol=1e-4)


def test_jumps_are_not_walked_back():
    words = "a flow map jumps towards the data only; invert its velocity with an ODE sampler"
    for noise in (None, "restart"):
        with pytest.raises(ValueError, match=words):
            Inversion(FlowMapSampler(steps=4, noise=noise))
    with pytest.raises(ValueError, match=words):
        Editing(FlowMapSampler(steps=4), inject=2)
