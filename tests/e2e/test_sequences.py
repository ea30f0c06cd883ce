"""ARFlow from the command line: sequences in training, a memory in sampling, older runs."""

import json

import pytest
import torch
import yaml

import flowexp as library
from flowexp.samplers import ARFlowSampler, Euler
from tests.e2e.command import TINY, flowexp, shared_by_two

SEQUENCES = (
    "experiment=fashion10k/arflow",
    "dataset=digits",
    "autoencoder=none",
    "network.patch_size=4",
    "network.hidden_size=16",
    "network.depth=2",
    "network.num_heads=2",
    "network.sequence=4",
    "network.label_dropout=0.0",
    "trainer.batch_size=32",
    "trainer.max_kimg=0.256",
    "trainer.log_every=1",
    "trainer.threads=1",
    "lr_schedule=constant",
    "sampler.solver.steps=3",
)


def weights(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["network"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sequences")
    outcome = flowexp("train", *SEQUENCES, "dirs.run=run", cwd=folder)
    assert outcome.code == 0, outcome.err
    return folder / "run"


def test_a_run_is_sampled_with_a_memory_and_as_a_plain_flow(run):
    common = ("run=run", "num_samples=8", "metric=nfe")
    outcomes = [
        flowexp("eval", *common, *more, cwd=run.parent)
        for more in (
            (),
            ("sampler=arflow", "sampler.solver.steps=4", "guidance=cfg", "guidance.scale=2"),
            ("sampler=arflow", "sampler@sampler.solver=heun", "sampler.solver.steps=2"),
            ("sampler=euler", "sampler.steps=5"),
        )
    ]
    assert [o.code for o in outcomes] == [0] * 4, [o.err for o in outcomes]
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))["evaluations"]
    found = [(r["records"][0]["protocol"]["sampler"], r["nfe"]) for r in results]
    assert found == [
        ("EulerMaruyama, 3 steps, with memory", 3.0),
        ("EulerMaruyama, 4 steps, with memory", 8.0),
        ("Heun, 2 steps, with memory", 3.0),
        ("Euler, 5 steps", 5.0),
    ]


def test_the_library_samples_the_same_with_any_batch_size(run):
    pipe = library.load(run).replace(sampler=ARFlowSampler(Euler(steps=3)))
    together = pipe.replace(batch_size=4).sample(range(4), labels=[0, 1, 2, 3])
    alone = pipe.replace(batch_size=1).sample(range(4), labels=[0, 1, 2, 3])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    plain = pipe.replace(sampler=Euler(steps=3)).sample(range(4), labels=[0, 1, 2, 3])
    assert not torch.equal(plain, together)


def test_a_stopped_training_continues_exactly(run):
    half = flowexp("train", *SEQUENCES, "trainer.max_kimg=0.128", "dirs.run=half", cwd=run.parent)
    rest = flowexp("train", "run=half", "trainer.max_kimg=0.256", cwd=run.parent)
    assert (half.code, rest.code) == (0, 0), half.err + rest.err
    assert same(weights(run.parent / "half"), weights(run))


def test_two_processes_share_whole_sequences(run):
    ddp = ("trainer.strategy=ddp", "trainer.devices=2", "dirs.run=two")
    outcome = shared_by_two("train", *SEQUENCES, *ddp, "trainer.accelerator=cpu", cwd=run.parent)
    assert outcome.code == 0, outcome.err
    two, one = weights(run.parent / "two"), weights(run)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "key", "what"),
    [
        (["order=epochs"], "order", "sequences of 4 images, but RandomEpochs"),
        (["order.length=2"], "order.length", "sequences of 2"),
        (["timestep=uniform"], "timestep", "Uniform does not draw"),
        (["timestep.length=3"], "timestep", "falling times"),
        (["trainer.batch_size=30"], "trainer.batch_size", "whole sequences of 4"),
        (["trainer.micro_batch=6"], "trainer.micro_batch", "whole sequences of 4"),
        (["coupling=minibatch_ot"], "coupling", "another order"),
        (["sampler@sampler.solver=dopri5"], "sampler.solver.steps", "rejects"),
        (["network=unet"], "sampler", "memory"),
    ],
)
def test_what_does_not_go_with_sequences_is_refused(overrides, key, what, tmp_path):
    sizes = [o for o in SEQUENCES if not o.startswith("network") or overrides != ["network=unet"]]
    if overrides == ["network=unet"]:
        sizes += ["order=epochs", "timestep=uniform"]
    outcome = flowexp("check", *sizes, *overrides, cwd=tmp_path)
    assert outcome.code != 0
    line = next(line for line in outcome.err.splitlines() if what in line)
    assert f"{key}: " in line


def test_a_run_from_before_there_were_orders_is_continued_and_is_the_same_run(tmp_path):
    whole = flowexp("train", *TINY, "trainer.threads=1", "dirs.run=whole", cwd=tmp_path)
    half = flowexp(
        "train", *TINY, "trainer.threads=1", "trainer.max_kimg=0.128", "dirs.run=old", cwd=tmp_path
    )
    assert (whole.code, half.code) == (0, 0), whole.err + half.err
    file = tmp_path / "old" / "config.yaml"
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert config.pop("order") == {"_target_": "flowexp.data.orders.RandomEpochs"}
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    manifest = tmp_path / "old" / "manifest.json"
    stored = json.loads(manifest.read_text(encoding="utf-8"))
    stored["choices"].pop("order", None)
    manifest.write_text(json.dumps(stored), encoding="utf-8")

    sampled = flowexp("eval", "run=old", "num_samples=4", "metric=nfe", cwd=tmp_path)
    rest = flowexp("train", "run=old", "trainer.max_kimg=0.256", cwd=tmp_path)
    assert (sampled.code, rest.code) == (0, 0), sampled.err + rest.err
    assert same(weights(tmp_path / "old"), weights(tmp_path / "whole"))
    other = flowexp("train", "run=old", "order=class_sequences", "order.length=2", cwd=tmp_path)
    assert other.code != 0
    assert "order" in other.err
    start = flowexp("train", "from=old", "trainer.max_kimg=0.064", "dirs.run=new", cwd=tmp_path)
    assert start.code == 0, start.err
