"""Wrong command lines: every key at once, each with its remedy, before anything runs."""

import json
import shlex

import pytest
import yaml

from flowexp.config import here
from flowexp.config.application import launch
from flowexp.config.check import check
from flowexp.config.combinations import combinations
from flowexp.config.here import cuda_devices, missing_here
from flowexp.config.overrides import parse
from flowexp.errors import UsageError
from flowexp.tree import leaves

# command line, and the words of its message by key
TRAIN = {
    "max_kimg=0.1": {"max_kimg": "trainer.max_kimg"},
    "max_kmg=3": {"max_kmg": "Did you mean trainer.max_kimg?"},
    "trainer.max_kimg=1e400": {"trainer.max_kimg": "Give a finite number"},
    "trainer.max_kimg=nan": {"trainer.max_kimg": "Give a finite number"},
    "optimizer.lr=fast": {"optimizer.lr": "Give a finite number"},
    "optimizer.betas=[0.9,1.5]": {"optimizer.betas": "Invalid beta parameter at index 1: 1.5"},
    "optimizer=sgd optimizer.momentum=-1": {"optimizer.momentum": "Invalid momentum value: -1"},
    "optimizer._target_=torch.optim.RMSprop optimizer.alpha=-2": {"optimizer.alpha": "Invalid"},
    "+optimizer.amsgrad=3": {"optimizer.amsgrad": "Give true or false"},
    "callbacks.a._target_=pytorch_lightning.callbacks.EarlyStopping callbacks.a.monitor=l "
    "callbacks.a.patience=three": {"callbacks.a.patience": "Give an integer"},
    "metric=fid metric.fid.extractor.weights=3": {"metric.fid.extractor.weights": "name of a file"},
    "sampler=edm_heun sampler.S_noise=inf": {"sampler.S_noise": "Give a finite number"},
    "dataset=toy2d network=mlp dataset.noise=-1": {"dataset.noise": "noise must be finite"},
    "timestep=uniform timestep.low=-1": {"timestep.low": "need 0 <= low < high"},
    "trainer.accelerator=mps": {"trainer.accelerator": "trainer.accelerator=cpu"},
    "trainer.devices=two": {"trainer.devices": "a number of devices"},
    "optimizer.lr=[1,2]": {"optimizer.lr": "Give a finite number"},
    "+new.key=3": {"new.key": "Did you mean network?"},
    "++new.key=3": {"new.key": "Did you mean network?"},
    "+dirs.foo=3": {"dirs.foo": "Did you mean dirs.root?"},
    "+sampler.foo=1": {"sampler.foo": "Heun takes no such value"},
    "experiment=fashion10k/sct objective=meanflow": {"experiment": "take another experiment"},
    "+trainer=gpu": {"trainer": "trainer=NAME, without +"},
    "~optimizer": {"optimizer": "must be given"},
    "~trainer.max_kimg": {"trainer.max_kimg": "TrainerSettings needs it"},
    "--lr=0.1": {"--lr": "Write optimizer.lr=0.1."},
    "--seed=3": {"--seed": "Write seed=3."},
    "--batch-size=3": {"--batch-size": "Write trainer.batch_size=3."},
    "--network=mlp": {"--network": "Write network=mlp."},
    "--max_kmg=3": {"--max_kmg": "Write trainer.max_kimg=3."},
    "--nothing=3": {"--nothing": "instead of dashed options"},
    "coupling=pairs pairs=nothere init=nowhere": {"pairs": "flowexp pairs", "init": "nowhere"},
    "coupling=pairs pairs=[nothere,GREY]": {"pairs": "nothere is not a pair store"},
    "experiment=cifar10/rfpp_a trainer.accelerator=auto init=RUN pairs=GREY": {
        "pairs": "are 1x28x28, but the dataset here is 3x32x32",
        "init": "was trained on 1x8x8, but the dataset here is 3x32x32",
        "dataset.root": "dataset.download=true",
    },
    "objective=phased teacher=nowhere": {"teacher": "nowhere is not a run directory"},
    "dataset=digits init=UNFINISHED": {"init": "has no checkpoint yet"},
    "dataset=image_folder dataset.resolution=8 dataset.archive=none.zip optimizer.lr=-1": {
        "dataset.archive": "none.zip was not found",
        "optimizer.lr": "positive",
    },
    "sampler.stps=4 trainer.batch_size=0 optimizer.lr=-1": {
        "sampler.stps": "sampler.steps",
        "trainer.batch_size": ">= 1",
        "optimizer.lr": "positive",
    },
    "path=liner seed=x bogus=1 network.hidden=3 path.D=-1 trainer.log_every=0 --lr=3 path": {
        "path": "Did you mean linear?",
        "seed": "integer",
        "bogus": "no group or key",
        "network.hidden": "network has no key",
        "trainer.log_every": ">= 1",
        "--lr": "optimizer.lr=3",
    },
    "network=mpl network.hidden=3 dataset=toy2d optimizer.lr=-1": {
        "network": "mlp",
        "optimizer.lr": "positive",
    },
    "experiment=fashion10k/rectifed_flow sampler.S_churn=3 sampler.steps=0": {
        "experiment": "fashion10k/rectified_flow",
        "sampler.steps": "at least 1",
    },
    "path=[ve,vp] seed=1,2 optimizer.lr=-1": {"path": "-m", "seed": "-m", "optimizer.lr": "pos"},
}
OF_A_RUN = {
    "eval --num_samples=3": {"run": "run=DIR", "--num_samples": "Write num_samples=3."},
    "eval --run=RUN num_samples=0": {"--run": "Write run=", "num_samples": "at least 2"},
    "sample run=nowhere batch_size=0": {"run": "no such folder", "batch_size": "at least 1"},
    "eval metric=fid seeds=a-b num_samples=true": {"run": "run=DIR", "seeds": "'a-b'"},
    "eval run=RUN trainer.threads=1 optimizer.lr=1": {
        "trainer.threads": "this command has no trainer. Did you mean threads?",
        "optimizer.lr": "this command has no optimizer. Leave it out.",
    },
    "eval run=nowhere recipe=null": {"run": "no such folder"},
    "eval run=RUN optimizer=adam": {"optimizer": "this command has no optimizer"},
    "sample run=UNFINISHED": {"run": "has no checkpoint yet"},
    "sample run=RUN device=mps": {"device": "device=cpu"},
    "eval run=RUN metric=fid sampler.stps=3 num_samples=1.5": {
        "sampler.stps": "sampler.steps",
        "num_samples": "integer",
        "metric.fid.extractor.weights": "were not found",
    },
}
SOUND = [
    "callbacks.a._target_=pytorch_lightning.callbacks.LearningRateMonitor",
    "+callbacks.a={_target_:pytorch_lightning.callbacks.LearningRateMonitor}",
    "+width=16 network.model_channels=${width}",
    "++trainer.max_kimg=3",
    "++dirs.run=outputs/mine",
    "+optimizer.amsgrad=true",
    "~callbacks.sample_grid",
    "optimizer=sgd",
    "path.D=inf",
    "sampler=edm_heun sampler.S_max=inf",
    "hydra.job.chdir=false",
    "dataset=digits init=RUN",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A finished run, one without a checkpoint, and a store of grey pairs."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("RUN", "UNFINISHED", "GREY")}
    config = yaml.safe_dump(check("train", ["dataset=digits"]).sound())
    for name in ("RUN", "UNFINISHED"):
        (made[name] / "config.yaml").write_text(config, encoding="utf-8")
    (made["RUN"] / "checkpoints").mkdir()
    (made["RUN"] / "checkpoints" / "last.ckpt").touch()
    manifest = {"format": "flowexp-pairs-1", "shape": [1, 28, 28]}
    (made["GREY"] / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return made


@pytest.fixture(autouse=True)
def _without_files_or_devices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("FLOWEXP_DATA", "FLOWEXP_WEIGHTS", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path / "cache"))


def checked(verb, line, folders, **options):
    for name, folder in folders.items():
        line = line.replace(name, str(folder))
    return check(verb, shlex.split(line), also=missing_here, **options)


def assert_answered(found, expected, tmp_path):
    messages = {problem.key: str(problem) for problem in found.problems}
    assert set(messages) == set(expected), messages
    for key, words in expected.items():
        assert words in messages[key]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("line", TRAIN)
def test_a_training(line, folders, tmp_path):
    assert_answered(checked("train", line, folders), TRAIN[line], tmp_path)


@pytest.mark.parametrize("line", OF_A_RUN)
def test_a_verb_that_starts_from_a_run(line, folders, tmp_path):
    verb, _, rest = line.partition(" ")
    assert_answered(checked(verb, rest, folders), OF_A_RUN[line], tmp_path)


@pytest.mark.parametrize("line", SOUND)
def test_what_is_right_stays_right(line, folders):
    assert [str(problem) for problem in checked("train", line, folders).problems] == []


@pytest.mark.parametrize("verb", ["eval", "sample", "pairs", "stream"])
def test_guidance_without_dropped_labels_is_warned_of(verb, folders):
    found = checked(verb, "run=RUN guidance=cfg", folders)
    assert any("network.label_dropout=0" in remark for remark in found.remarks)


def test_a_training_warns_of_weights_that_its_evaluation_will_need(folders):
    found = checked("train", "metric=fid", folders)
    assert found.problems == []
    assert any("metric.fid.extractor.weights" in remark for remark in found.remarks)


def test_a_problem_of_some_jobs_of_a_sweep_says_of_which(folders):
    line = "path=linear,edm seed=1,2 timestep=logit_normal path.D=1,0"
    messages = [str(p) for p in checked("train", line, folders, multirun=True).problems]
    assert len(messages) == 2
    assert any("(With path=edm path.D=1.)" in text for text in messages)
    assert any(text.startswith("path.D: D is 0;") and "With" not in text for text in messages)


def test_every_value_of_a_large_sweep_is_in_a_combination():
    parsed, _ = parse(["seed=range(0,40)", "sampler.steps=range(1,31)", "path=linear"])
    jobs = combinations(parsed)
    assert len(jobs) < 200
    assert {dict(job.swept)["seed"] for job in jobs} == {str(n) for n in range(40)}
    assert {dict(job.swept)["sampler.steps"] for job in jobs} == {str(n) for n in range(1, 31)}
    (single,) = combinations(parsed[2:])
    assert single.settings == ("path=linear",)


def test_cuda_devices_are_counted_without_torch(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert cuda_devices() == 0
    monkeypatch.setattr(here, "cuda_devices", lambda: 2)
    problems = list(missing_here("sample", {"device": "cuda:3"}))
    assert [problem.key for problem in problems] == ["device"]
    assert list(missing_here("sample", {"device": "cuda:1"})) == []
    elsewhere = {"device": "cuda:3", "launcher": {"gpus": 4}}
    assert list(missing_here("sample", elsewhere)) == []


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--lr", "0.1"], "Write optimizer.lr=0.1."),
        (["-lr", "3", "seed=1"], "Write optimizer.lr=3."),
        (["seed=1", "--max_kimg", "-1"], "Write trainer.max_kimg=-1."),
        (["--lr"], "Write optimizer.lr=VALUE."),
        (["--compile"], "Write trainer.compile=true."),
        (["--seed-everything", "3"], "Write seed=3."),
        (["--config=3"], "flowexp train --help"),
    ],
)
def test_options_in_dashes(words, remedy, tmp_path):
    with pytest.raises(UsageError) as error:
        launch("train", lambda job: None, words)
    assert remedy in str(error.value)
    assert not list(tmp_path.iterdir())


def test_every_number_of_a_training_is_checked():
    """Text, nan, true and a list in the place of every number of the default parts."""
    plain = check("train", ["dataset=digits"]).config
    numbers = {k for k, v in leaves(plain) if type(v) in (int, float)} - {"trainer.devices"}
    assert len(numbers) > 30
    for wrong in ("text", "nan", "true", "[1,2]"):
        found = {p.key for p in check("train", [f"{key}={wrong}" for key in numbers]).problems}
        assert found >= numbers, (wrong, numbers - found)
