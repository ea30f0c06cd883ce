"""Numbers that no one means: one sentence with the key and a remedy, before anything is made."""

import numpy as np
import pytest
import yaml

from flowexp.config.check import check
from flowexp.config.seed_text import parse_seeds
from flowexp.errors import UsageError
from flowexp.runs.assemble import resolve_device
from flowexp.training import TrainerSettings
from flowexp.training.trainer import require_devices

TRAIN = [
    "trainer.max_kimg=inf", "trainer.max_kimg=nan", "trainer.max_kimg=1e400", "trainer.max_kimg=-1",
    "trainer.max_kimg=long", "trainer.batch_size=0", "trainer.batch_size=99999999999",
    "trainer.batch_size=1.5", "trainer.checkpoint_kimg=inf", "trainer.log_every=1e9",
    "optimizer.lr=nan", "optimizer.lr=inf", "optimizer.lr=fast", "optimizer.lr=0",
    "optimizer.lr=null", "optimizer.betas=[0.9,fast]", "optimizer.eps=tiny", "optimizer.eps=nan",
    "optimizer.eps=inf", "optimizer.weight_decay=-1", "lr_schedule.ramp_up_kimg=nan",
    "lr_schedule.ramp_up_kimg=inf", "ema.main.half_life_kimg=inf", "ema.main.half_life_kimg=nan",
    "sampler.steps=1e9", "sampler.steps=1000000000", "sampler.steps=many",
    "sampler.perturbation=3", "sampler.perturbation=churn", "sampler.time_grid=3",
    "objective.weighting=1.5", "callbacks.sample_grid=3", "callbacks.sample_grid.every_kimg=inf",
    "metric.auto=fid", "ema.main=0.999", "seed=-1", "seed=1.5", "seed=null", "seed=one",
    "seed=9223372036854775808", "network.dropout=nan", "timestep.P_mean=nan", "path.D=nan",
    "path=3", "path=[3]", "network=1e3", "optimizer=true", "coupling=null", "metric=null",
]  # fmt: skip
FROM_RUN = [
    ("eval", "seeds=-1"), ("eval", "seeds=9223372036854775808"), ("eval", "seeds=0-99999999999"),
    ("eval", "seeds=1e3"), ("eval", "seeds=[0,1.5]"), ("eval", "seeds=[1,1]"),
    ("eval", "seeds=true"), ("eval", "seeds=[]"), ("eval", "seeds=two"),
    ("eval", "num_samples=5e9"), ("eval", "num_samples=5000000000"), ("eval", "num_samples=1.5"),
    ("eval", "num_samples=0"), ("eval", "num_samples=-1"),
    ("eval", "num_samples=inf"), ("eval", "batch_size=0"), ("eval", "batch_size=99999999999"),
    ("eval", "repeats=0"), ("eval", "repeats=100000000"), ("sample", "seeds=null"),
    ("sample", "seeds=9223372036854775808"), ("pairs", "num=99999999999999"),
    ("pairs", "seeds=0-99999999999"), ("pairs", "start.first_seed=9223372036854775807"),
    ("stream", "seed=-1"), ("stream", "group=1e9"), ("stream", "frames=null"),
    ("pairs", "start=null"), ("calibrate", "calibration=null"), ("eval", "selection=null"),
]  # fmt: skip


def assert_one_sentence(checked, override):
    (problem,) = checked.problems
    assert problem.key == override.partition("=")[0]
    assert problem.text.endswith(".")
    # a constructor names what is allowed in the sentence itself
    assert problem.remedy or "allowed" in problem.text or "expected" in problem.text
    assert "--cfg" not in problem.remedy


@pytest.mark.parametrize("override", TRAIN)
def test_in_a_training(override):
    assert_one_sentence(check("train", ["dataset=digits", override]), override)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = check("train", ["dataset=digits"]).sound()
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return f"run={folder}"


@pytest.mark.parametrize(("verb", "override"), FROM_RUN)
def test_of_a_run(verb, override, run):
    assert_one_sentence(check(verb, [run, override]), override)


@pytest.mark.parametrize("override", ["seeds=null", "seeds=9223372036854775807", "batch_size=1"])
def test_what_is_right_stays_right(override, run):
    assert check("eval", [run, override]).problems == []
    assert (
        check("train", ["path.D=inf", "sampler=edm_heun", "trainer.grad_clip=null"]).problems == []
    )


def test_the_largest_seed_is_stored_as_an_integer():
    assert np.asarray(parse_seeds("9223372036854775807,3")).dtype == np.int64
    assert parse_seeds(range(3)) == [0, 1, 2]


@pytest.mark.parametrize("name", ["mps", "xpu", "meta", "cuda:7", "cuda:99", "foo", "3", "cpu0"])
def test_devices_that_are_not_here(name):
    with pytest.raises(UsageError, match=r"device: .*\. Use "):
        resolve_device(name)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"accelerator": "mps"}, "accelerator"),
        ({"accelerator": "abacus"}, "accelerator"),
        ({"devices": 0}, "devices"),
        ({"accelerator": "cpu", "devices": -2}, "devices"),
    ],
)
def test_devices_of_a_training_that_are_not_here(wrong, key):
    settings = TrainerSettings(max_kimg=1, batch_size=1, **wrong)
    with pytest.raises(UsageError, match=rf"trainer\.{key}: .*\. Use "):
        require_devices(settings)
