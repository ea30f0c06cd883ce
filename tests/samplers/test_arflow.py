"""Sampling with a memory: each step continues the sequence of the steps before it."""

import pytest
import torch

from flowexp.errors import UsageError
from flowexp.guidance import ClassifierFree
from flowexp.models import FlowModel
from flowexp.networks import DiT
from flowexp.networks.memory import Memory
from flowexp.parameterizations import VelocityPrediction
from flowexp.paths import Linear, Path
from flowexp.pipeline import Pipeline
from flowexp.samplers import ARFlowSampler, DormandPrince, Euler, Heun3, Uniform, UniPC
from flowexp.samplers.diffusions import Sigma
from flowexp.samplers.sde import EulerMaruyama, MeanLast
from flowexp.seeding import SampleNoise
from flowexp.tasks import Generation
from tests.networks.test_arflow import small

ROUNDING = {"rtol": 1e-5, "atol": 1e-5}
LABELS = torch.tensor([0, 2, 1])


def flow(network=None):
    network = small().eval() if network is None else network
    return FlowModel(Path(Linear()), network=network, parameterization=VelocityPrediction())


def sde(steps=4):
    grid = Uniform(t_end=0.1)
    return EulerMaruyama(steps=steps, time_grid=grid, diffusion=Sigma(), last_step=MeanLast())


def draws(count=3):
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(6))


def sampled(sampler, model=None, rows=slice(None), **conditions):
    seeds = [11, 12, 13][rows]
    given = {"labels": LABELS[rows], **conditions}
    noise = SampleNoise(seeds)
    return sampler.sample(flow() if model is None else model, draws()[rows], noise=noise, **given)


@pytest.fixture
def calls(monkeypatch):
    """Inputs and outputs of every network call, and whether it extended the memory."""
    found = []
    forward = DiT.forward

    def recorded(self, x, c_noise, labels=None, *rest):
        before = self.memory.states
        out = forward(self, x, c_noise, labels, *rest)
        found.append((x, c_noise, labels, out, self.memory.states is not before))
        return out

    monkeypatch.setattr(DiT, "forward", recorded)
    yield found
    monkeypatch.undo()


def at_once(history, call):
    """The network's output for the last image of a sequence, in one call in training mode."""
    images = [*history, call]
    network = small(sequence=len(images)).train()
    count = len(call[0])
    x, c, labels = (
        torch.stack([image[part] for image in images], dim=1).flatten(0, 1) for part in range(3)
    )
    return network(x, c, labels)[len(images) - 1 :: len(images)], count


@pytest.mark.parametrize(
    ("solver", "extending"),
    [
        (Euler(steps=4), [True] * 4),
        (sde(), [True] * 4),
        (UniPC(steps=4), [True, False, True, True]),
        (Heun3(steps=3), [True, False, False] * 3),
    ],
    ids=["euler", "sde", "unipc", "heun3"],
)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_cached_generation_is_the_whole_sequence_at_once(
    calls, monkeypatch, solver, extending, scale
):
    model = ClassifierFree(scale=scale).wrap(flow())
    result = sampled(ARFlowSampler(solver), model)
    monkeypatch.undo()
    assert [call[4] for call in calls] == extending
    assert (result.nfe == len(calls) * (2 if scale > 1 else 1)).all()
    history = []
    for call in calls:
        expected, rows = at_once(history, call)
        assert rows == (6 if scale > 1 else 3)
        torch.testing.assert_close(call[3], expected, **ROUNDING)
        if call[4]:
            history.append(call)
    # memory matters
    plain = sampled(solver, model)
    assert (plain.x - result.x).abs().max() > 1e-3


def test_with_one_step_it_is_the_plain_flow():
    plain, remembering = sampled(Euler(steps=1)), sampled(ARFlowSampler(Euler(steps=1)))
    assert torch.equal(plain.x, remembering.x)


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_a_sample_does_not_depend_on_its_batch(scale):
    model = ClassifierFree(scale=scale).wrap(flow())
    together = sampled(ARFlowSampler(sde()), model).x
    for row in range(3):
        alone = sampled(ARFlowSampler(sde()), model, slice(row, row + 1)).x
        torch.testing.assert_close(alone[0], together[row], **ROUNDING)


def test_guidance_gives_each_half_its_own_memory():
    model, sampler = flow(), ARFlowSampler(Euler(steps=3))
    labelled = sampled(sampler, model)
    unlabelled = sampled(sampler, model, labels=torch.full((3,), -1))
    assert not torch.equal(labelled.x, unlabelled.x)
    nothing = sampled(sampler, ClassifierFree(scale=0.0).wrap(model))
    torch.testing.assert_close(nothing.x, unlabelled.x, **ROUNDING)


def test_nothing_is_left_after_a_call():
    model, sampler = flow(), ARFlowSampler(sde())
    before = sampled(sde(), model).x
    first, second = sampled(sampler, model).x, sampled(sampler, model).x
    assert torch.equal(first, second)
    assert torch.equal(sampled(sde(), model).x, before)


def test_it_passes_on_what_its_solver_is():
    sampler = ARFlowSampler(sde(steps=7))
    assert sampler.steps == 7
    assert sampler.adds_noise
    assert sampler.needs_gaussian
    assert sampler.describe() == "EulerMaruyama, 7 steps, with memory"
    assert not ARFlowSampler(Euler(steps=2)).adds_noise
    seen = []
    sampler.sample(
        flow(), draws(), noise=SampleNoise([1, 2, 3]), labels=LABELS,
        on_step=lambda t, x: seen.append((float(t), x.shape)),
    )  # fmt: skip
    assert len(seen) == 8
    assert seen[0][0] == 1.0
    assert seen[-1][0] == 0.0


def test_adaptive_solvers_and_networks_without_memory_are_refused():
    shape = (2, 8, 8)
    options = {"shape": shape, "task": Generation(num_classes=3)}
    with pytest.raises(UsageError, match="rejects") as refusal:
        Pipeline(model=flow(), sampler=ARFlowSampler(DormandPrince()), **options)
    assert refusal.value.key == "sampler.solver"
    plain = DiT(img_resolution=8, in_channels=2, out_channels=2, hidden_size=8, num_heads=2)
    with pytest.raises(UsageError, match="memory"):
        Pipeline(model=flow(plain), sampler=ARFlowSampler(Euler(steps=2)), **options)
    with pytest.raises(TypeError, match="DiT has no memory"):
        flow(plain).remembering(Memory())
    with pytest.raises(TypeError, match="FlowModel has no memory"):
        flow(torch.nn.Conv2d(2, 2, 1)).remembering(Memory())


def test_a_pipeline_gives_the_same_samples_in_every_batch_size():
    options = {"model": flow(), "sampler": ARFlowSampler(sde()), "shape": (2, 8, 8)}
    task = Generation(num_classes=3)
    large = Pipeline(**options, task=task, batch_size=5).sample(range(5))
    small_ = Pipeline(**options, task=task, batch_size=2).sample(range(5))
    torch.testing.assert_close(large, small_, **ROUNDING)
