"""Parts of other packages by config alone, from a folder outside the repository."""

import csv
import textwrap
from pathlib import Path

import pytest
import torch
import yaml

import flowexp as library
from flowexp.errors import UsageError
from tests.e2e.command import flowexp

pytestmark = pytest.mark.e2e

TINY = ("dataset=eight_gaussians", "network=mlp", "metric=nfe", "callbacks=none",
        "trainer.batch_size=32", "trainer.log_every=1", "sampler.steps=2")  # fmt: skip


@pytest.fixture
def outside(tmp_path):
    """A folder with a network of a state and a time, and one that also takes labels."""
    (tmp_path / "my_package.py").write_text(
        textwrap.dedent(
            """
            import torch
            from pytorch_lightning import Callback
            from pytorch_lightning.loggers import CSVLogger
            from torch import nn


            class MyNet(nn.Module):
                def __init__(self, width: int = 16) -> None:
                    super().__init__()
                    self.layers = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, 2))

                def forward(self, x, t):
                    return self.layers(torch.cat([x, t[:, None]], dim=1))


            class Labelled(MyNet):
                def __init__(self, classes: int, width: int = 16) -> None:
                    super().__init__(width)
                    self.embedding = nn.Embedding(classes + 1, 2)
                    nn.init.normal_(self.embedding.weight)

                def forward(self, x, t, y):
                    return super().forward(x + self.embedding(y + 1), t)


            class Counter(Callback):
                def __init__(self, every: int = 1) -> None:
                    self.every = every

                def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
                    if trainer.global_step % self.every == 0:
                        with open("counted.txt", "a") as file:
                            file.write(f"{trainer.global_step} ")


            class MyLogger(CSVLogger):
                def __init__(self, save_dir: str, **kwargs) -> None:
                    super().__init__(save_dir, **kwargs)
            """
        )
    )
    return tmp_path


TRUST = {"FLOWEXP_TRUST": "my_package"}


def succeed(*arguments, cwd, env=None):
    outcome = flowexp(*arguments, cwd=cwd, env=env)
    assert outcome.code == 0, outcome.err
    return outcome


def refused(*arguments, cwd, env=None):
    outcome = flowexp(*arguments, cwd=cwd, env=env)
    assert outcome.code == 2, (outcome.out, outcome.err)
    return outcome.err


NETWORKS = {
    "unconditional": ["network._target_=my_package.MyNet", "network.width=8"],
    "conditional": ["network._target_=my_package.Labelled", "network.classes=8"],
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_module_is_trained_resumed_scored_sampled_and_exported(kind, outside, monkeypatch):
    train = ["train", *TINY, *NETWORKS[kind], "dirs.run=run"]
    started = succeed(*train, "trainer.max_kimg=0.064", cwd=outside)
    assert "does not take in_channels, out_channels, label_dim" in started.err
    resumed = succeed(*train, "trainer.max_kimg=0.096", cwd=outside)
    assert "0.096 kimg" in resumed.out
    named = NETWORKS[kind][0]
    error = refused("eval", "run=run", "num_samples=16", cwd=outside)
    assert f"run/config.yaml names {named.partition('=')[2]}, which is no Module" in error
    assert "set FLOWEXP_TRUST=my_package" in error
    succeed("eval", "run=run", "num_samples=16", cwd=outside, env=TRUST)
    # What the command line names itself is trusted as well.
    succeed("sample", "run=run", named, "seeds=0-3", "dirs.run=samples", cwd=outside)
    exported = succeed("export", "run=run", "dirs.run=export", cwd=outside, env=TRUST)
    assert "packages=['my_package']" in exported.out

    monkeypatch.syspath_prepend(str(outside))
    with pytest.raises(UsageError, match="FLOWEXP_TRUST=my_package"):
        library.load(outside / "run")
    run = library.load(outside / "run", packages=["my_package"])
    file = outside / "export" / "main.safetensors"
    with pytest.raises(UsageError, match="FLOWEXP_TRUST=my_package"):
        library.load(file)
    alone = library.load(file, packages=["my_package"])
    if kind == "conditional":
        samples = [run.sample(range(4), labels=label) for label in (1, 2)]
        assert not samples[0].equal(samples[1])
        assert alone.sample(range(4), labels=1).equal(samples[0])
    else:
        assert alone.sample(range(4)).equal(run.sample(range(4)))
        with pytest.raises(ValueError, match="unconditional"):
            run.sample(range(4), labels=1)


def test_a_run_keeps_the_command_line_as_typed(outside):
    given = [*NETWORKS["unconditional"], "trainer.max_kimg=0.032", "dirs.run=run"]
    succeed("train", *TINY, *given, cwd=outside)
    stored = (outside / "run" / "overrides.yaml").read_text()
    assert "- network.width=8" in stored
    assert "++" not in stored


def test_a_sweep_over_classes_of_networks(outside):
    classes = "network._target_=my_package.MyNet,my_package.Labelled"
    rest = ["+network.classes=8", "trainer.max_kimg=0.032", "-m", "dirs.sweep=sweep"]
    error = refused("train", *TINY, classes, *rest, cwd=outside)
    assert "network.classes: MyNet takes no such value" in error
    sizes = [*NETWORKS["unconditional"][:1], "network.width=4,8"]
    outcome = succeed("train", *TINY, *sizes, *rest[1:], cwd=outside)
    assert "MyNet, 26 parameters" in outcome.out
    assert "MyNet, 50 parameters" in outcome.out


def test_a_run_opened_elsewhere_names_the_missing_module(outside):
    given = [*NETWORKS["unconditional"], "trainer.max_kimg=0.032", "dirs.run=run"]
    succeed("train", *TINY, *given, cwd=outside)
    elsewhere = outside / "elsewhere"
    elsewhere.mkdir()
    error = refused("eval", "run=../run", cwd=elsewhere, env=TRUST)
    assert "my_package.MyNet cannot be imported: there is no module my_package" in error
    assert list(elsewhere.iterdir()) == []


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_a_strangers_run_executes_nothing(trained_run):
    """In the folder where he wants it: his pickle, and modules under the names of real ones."""
    config = yaml.safe_load((trained_run / "config.yaml").read_text())
    config["sampler"] = {"_target_": "torch.load", "f": "x.pt", "weights_only": False}
    config["hydra"] = {"callbacks": {"x": {"_target_": "evil.Part"}}}
    (trained_run / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(Payload(), trained_run / "x.pt")
    for name in ("evil", "torch", "yaml"):
        (trained_run / f"{name}.py").write_text("open('executed', 'w')")
    before = sorted(trained_run.rglob("*"))
    error = refused("sample", "run=.", cwd=trained_run)
    assert error.startswith("flowexp: sampler._target_: config.yaml names torch.load, ")
    assert sorted(trained_run.rglob("*")) == before


ADDED = (
    "callbacks.lr._target_=pytorch_lightning.callbacks.LearningRateMonitor",
    "callbacks.lr.logging_interval=step",
    "callbacks.mine._target_=my_package.Counter",
    "callbacks.mine.every=3",
    "logger.mlflow._target_=pytorch_lightning.loggers.CSVLogger",
    "logger.mlflow.save_dir=x",
    "logger.mine._target_=my_package.MyLogger",
    "logger.mine.save_dir=x",
    "logger.mine.version=2",
    "metric.kid._target_=torchmetrics.image.KernelInceptionDistance",
    "metric.kid.subset_size=50",
    "ema.slow._target_=flowexp.training.ConstantEMA",
    "ema.slow.decay=0.9",
)


def test_callbacks_loggers_metrics_and_averages_are_added_without_a_plus(outside):
    outcome = succeed("check", *ADDED, cwd=outside)
    assert "sound" in outcome.out
    assert outcome.err == ""
    shown = succeed("train", *ADDED, "--cfg", "job", "--package", "callbacks", cwd=outside)
    assert "every: 3" in shown.out


def test_a_folder_of_yaml_files_names_them_as_well(outside):
    files = {
        "network/mine": "_target_: my_package.Labelled\nclasses: ${dataset.num_classes}\n",
        "callbacks/mine": "mine:\n  _target_: my_package.Counter\n  every: 3\n",
        "logger/mine": "mine:\n  _target_: my_package.MyLogger\n  save_dir: x\n",
        "metric/mine": "kid:\n  _target_: torchmetrics.image.KernelInceptionDistance\n",
    }
    for name, text in files.items():
        file = outside / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(f"# mine\n{text}")
    chosen = ["callbacks=mine", "logger=mine", "metric=mine", "--config-dir", "conf"]
    assert "sound" in succeed("check", *chosen, cwd=outside).out
    tiny = [choice for choice in TINY if not choice.startswith("callbacks=")]
    chosen = ["network=mine", "callbacks=mine", "logger=mine", "--config-dir", "conf"]
    for kimg in (0.128, 0.224):  # the second continues the first
        size = ["trainer.max_kimg=" + str(kimg), "dirs.run=run"]
        assert (
            "Labelled, 116 parameters" in succeed("train", *tiny, *chosen, *size, cwd=outside).out
        )
    assert (outside / "counted.txt").read_text() == "3 6 "
    tables = sorted((outside / "x").rglob("metrics.csv"))
    logged = [row for table in tables for row in csv.DictReader(table.read_text().splitlines())]
    assert [int(row["step"]) for row in logged] == [1, 2, 3, 4, 5, 6, 7]
    assert all(float(row["train/loss"]) > 0 for row in logged)
    assert "my_package.Labelled" in refused("eval", "run=run", "num_samples=16", cwd=outside)
    succeed("eval", "run=run", "num_samples=16", "--config-dir", "conf", cwd=outside)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["callbacks.progres.refresh_seconds=2"], ["Did you mean callbacks.progress"]),
        (["callbacks.lr.every=2"], ["callbacks.lr._target_=CLASS"]),
        (
            ["callbacks.mine._target_=my_package.Counter", "callbacks.mine.evry=2"],
            ["callbacks.mine.evry: Counter takes no such value", "callbacks.mine.every"],
        ),
        (["network._target_=my_package.MyNett"], ["my_package has no MyNett", "MyNet"]),
        (["network._target_=my_package.MyNet", "network.widht=3"], ["network.width"]),
        (["network._target_=my_package.MyNet", "network.width=a"], ["network.width", "int"]),
        (["network._target_=flowexp.networks.MLPP"], ["Did you mean MLP?"]),
        (["network._target_=nowhere.Net"], ["there is no module nowhere"]),
        (["network._target_=torch.nn.Identity"], ["network: Identity.forward takes (input)"]),
        (["netwrok._target_=my_package.MyNet"], ["Did you mean network?"]),
        (["sampler.time_gird._target_=flowexp.samplers.Natural"], ["sampler.time_grid"]),
    ],
)
def test_mistakes_are_named(arguments, words, outside):
    error = refused("check", *arguments, cwd=outside)
    for word in words:
        assert word in error


def test_eval_takes_a_metric_from_elsewhere_in_its_config(trained_run, tmp_path):
    kid = "metric.kid._target_=torchmetrics.image.KernelInceptionDistance"
    arguments = ["eval", f"run={trained_run}", kid, "metric.kid.subset_size=50"]
    outcome = succeed(*arguments, "--cfg", "job", "--package", "metric", cwd=tmp_path)
    assert "KernelInceptionDistance" in outcome.out
    assert "subset_size: 50" in outcome.out


def test_an_optimizer_keeps_what_it_shares_with_the_chosen_one(tmp_path):
    given = ["optimizer._target_=torch.optim.SGD", "optimizer.momentum=0.9"]
    outcome = succeed("train", *given, "--cfg", "job", "--package", "optimizer", cwd=tmp_path)
    assert "optimizer: torch.optim.SGD does not take betas" in outcome.err
    assert "lr: " in outcome.out
    assert "betas" not in outcome.out


MINE = """
from pytorch_lightning import Callback
from flowexp.samplers import FixedStepSampler


class Mine(FixedStepSampler):
    def step(self, field, z, interval, noise):
        raise KeyError("nothing")


class Late(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == 2:
            raise RuntimeError("at the second step")
"""


def test_an_error_inside_a_part_names_its_line(outside):
    (outside / "mine.py").write_text(MINE)
    sampler = ["sampler._target_=mine.Mine", "trainer.max_kimg=0.064"]
    outcome = flowexp("train", *TINY, *sampler, "dirs.run=run", cwd=outside)
    assert outcome.code == 1
    assert "KeyError: 'nothing'. Raised in Mine.step, mine.py, line 8" in outcome.err
    assert "(sampler._target_=mine.Mine). Nothing was trained" in outcome.err
    assert not (outside / "run").exists()

    late = ["callbacks.late._target_=mine.Late", "trainer.max_kimg=0.064", "dirs.sweep=sweep"]
    outcome = flowexp("train", *TINY, *late, "seed=1,2", "-m", cwd=outside)
    assert outcome.code == 1
    failed = "failed: RuntimeError: at the second step. Raised in Late.on_train_batch_end, mine.py"
    assert f"job 0 {failed}, line 14 (callbacks.late._target_=mine.Late)" in outcome.err
    assert "The full traceback is in sweep/0/log.txt." in outcome.err
    assert "in on_train_batch_end" in (outside / "sweep" / "0" / "log.txt").read_text()
