"""A run whose model has two times, through the verbs that sample from it."""

import json

import pytest
import torch

import flowexp as library
from flowexp.runs.trained import TrainedModel
from flowexp.samplers import FlowMapSampler, Heun
from tests.e2e.command import TINY, flowexp

MEANFLOW = (
    "parameterization=average_velocity",
    "timestep=sorted",
    "timestep@timestep.law=uniform",
    "objective=meanflow",
    "path=linear",
    "sampler=flow_map",
    "sampler.steps=2",
    "trainer.max_kimg=0.064",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_times")
    outcome = flowexp("train", *TINY, *MEANFLOW, "dirs.run=run", cwd=folder)
    assert outcome.code == 0, outcome.err
    return folder / "run"


def test_a_sweep_over_jumps_and_an_ode_sampler(run):
    common = ("run=run", "num_samples=8", "metric=nfe")
    sweep = flowexp(
        "eval", *common, "sampler.steps=1,3", "sampler.noise=restart", "-m", cwd=run.parent
    )
    plain = flowexp("eval", *common, "sampler=heun", "sampler.steps=2", cwd=run.parent)
    assert (sweep.code, plain.code) == (0, 0), sweep.err + plain.err
    assert "1 network evaluation a sample" in sweep.out
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))["evaluations"]
    found = [(r["records"][0]["protocol"]["sampler"], r["nfe"]) for r in results]
    assert found == [
        ("FlowMapSampler, 1 steps, restarts", 1.0),
        ("FlowMapSampler, 3 steps, restarts", 3.0),
        ("Heun, 2 steps", 3.0),
    ]


def test_the_run_is_a_teacher_of_two_times(run):
    teacher, pipe = TrainedModel(str(run)), library.load(run)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([1.0, 0.7, 0.4]), torch.tensor([0.0, 0.7, 0.1])
    labels = {"labels": torch.arange(3)}
    with torch.no_grad():
        for ask in ("average_velocity", "flow_map"):
            found = getattr(teacher, ask)(x, *times, **labels)
            torch.testing.assert_close(found, getattr(pipe.model, ask)(x, *times, **labels))
        average = teacher.average_velocity(x, times[0], times[0], **labels)
        assert torch.equal(average, teacher.velocity(x, times[0], **labels))
    assert (teacher.is_flow_map, teacher.maps_to_data_only) == (True, False)


def test_an_exported_model_jumps_and_follows_its_velocity(run):
    outcome = flowexp("export", "run=run", "dirs.run=exported", cwd=run.parent)
    assert outcome.code == 0, outcome.err
    (file,) = (run.parent / "exported").rglob("*.safetensors")
    own, exported = library.load(run), library.load(file)
    for sampler in (FlowMapSampler(steps=2), FlowMapSampler(steps=1), Heun(steps=2)):
        a, b = (pipe.replace(sampler=sampler).sample(seeds=[3, 5]) for pipe in (own, exported))
        assert torch.equal(a, b)
