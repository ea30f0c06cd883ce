"""A sample is a function of its seed."""

import pytest
import torch

from flowexp.guidance import ClassifierFree
from flowexp.pipeline import Processes, ReferenceLatents
from flowexp.samplers import (
    Churn,
    DormandPrince,
    Euler,
    Heun,
    LogDormandPrince,
    StateNoise,
    Uniform,
    VelocityBlocks,
)
from flowexp.samplers.diffusions import Sigma
from flowexp.samplers.sde import EulerMaruyama
from tests.evaluation.tiny import SHAPE, pipeline, task, tiny_model


def samples(seeds, *, batch_size: int, **rest) -> dict[int, torch.Tensor]:
    found = {}
    batches = pipeline(batch_size=batch_size).batches(seeds, **rest)
    for batch in batches:
        assert len(batch.seeds) == len(batch.x) == len(batch.nfe) <= batch_size
        assert batch.x.dtype == torch.float32
        found.update(zip(batch.seeds, batch.x, strict=True))
    return found


def test_samples_do_not_depend_on_the_batch_size() -> None:
    reference = samples(range(64), batch_size=64)
    assert len(reference) == 64
    assert len({tuple(x.flatten().tolist()) for x in reference.values()}) == 64
    for batch_size in (16, 7, 1):
        other = samples(range(64), batch_size=batch_size)
        for seed, x in reference.items():
            torch.testing.assert_close(other[seed], x, rtol=0.0, atol=1e-6)


def test_samples_do_not_depend_on_their_neighbours() -> None:
    reference = samples(range(20), batch_size=20)
    some = samples([13, 2], batch_size=2)
    for seed, x in some.items():
        torch.testing.assert_close(reference[seed], x, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("world_size", [2, 3, 9])
def test_sharing_the_work_changes_no_bit(world_size: int) -> None:
    reference = samples(range(30), batch_size=4)
    together: dict[int, torch.Tensor] = {}
    for rank in range(world_size):
        processes = Processes(rank=rank, world_size=world_size)
        mine = samples(range(30), batch_size=4, processes=processes)
        assert not together.keys() & mine.keys()
        together |= mine
    assert together.keys() == reference.keys()
    assert all(torch.equal(together[seed], x) for seed, x in reference.items())


def test_reference_latents_bring_their_labels_and_noise() -> None:
    rule = ReferenceLatents()
    (batch,) = pipeline(latents=rule).batches([4, 9])
    classes = task().num_classes
    drawn = rule.draw([4, 9], shape=SHAPE, source=tiny_model().path.source, num_classes=classes)
    assert torch.equal(batch.conditions["labels"], drawn.labels)


def test_guidance_is_applied_and_counted() -> None:
    def run(model):
        return next(pipeline(model=model).batches([0]))

    plain, guided = run(tiny_model()), run(ClassifierFree(scale=2.0).wrap(tiny_model()))
    assert not torch.allclose(plain.x, guided.x)
    assert int(guided.nfe[0]) == 2 * int(plain.nfe[0])


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        samples([0], batch_size=0)


@pytest.mark.parametrize(
    ("sampler", "text"),
    [
        (Euler(steps=4), "Euler, 4 steps"),
        (Heun(steps=4, perturbation=StateNoise(scale=0.1)), "Heun, 4 steps, StateNoise, scale=0.1"),
        (
            Heun(steps=4, perturbation=Churn(S_churn=2)),
            "Heun, 4 steps, Churn, S_churn=2.0, S_min=0.0, S_max=inf, S_noise=1.0",
        ),
        (
            EulerMaruyama(steps=5, time_grid=Uniform(t_end=0.1), diffusion=Sigma()),
            "EulerMaruyama, 5 steps",
        ),
        (DormandPrince(), "DormandPrince, rtol 1e-05"),
        (LogDormandPrince(), "LogDormandPrince, rtol 0.0001"),
        (
            VelocityBlocks(blocks="H1P2", time_grid=Uniform()),
            "VelocityBlocks, 3 steps, blocks H1P2",
        ),
    ],
)
def test_protocols_state_the_method_that_sampled(sampler, text) -> None:
    assert sampler.describe() == text


def test_protocols_state_latents_that_are_not_our_own() -> None:
    sampler = Euler(steps=4)
    assert pipeline(sampler=sampler).sampling == "Euler, 4 steps"
    other = pipeline(sampler=sampler, latents=ReferenceLatents())
    assert other.sampling == "Euler, 4 steps, ReferenceLatents"
    shared = DormandPrince(per_sample=False)
    assert pipeline(sampler=shared, batch_size=9).sampling.endswith(", steps shared by 9")
