"""Sixty mistakes of a user: each is answered with its key and the remedy, and leaves nothing."""

import shlex
import shutil
import time

import pytest

from flowexp.cli import main
from tests.e2e.command import flowexp

pytestmark = pytest.mark.e2e

# command, words that the answer must hold
REFUSED = {
    # words
    "trian dataset=digits": ["trian", "train"],
    "train --lr 0.1": ["--lr", "optimizer.lr=0.1"],
    "train --seed=3": ["--seed", "seed=3"],
    "table pfgmpp/cifar10 --dry-run": ["--dry-run", "dry=true"],
    "train lr=0.1": ["lr", "optimizer.lr"],
    "train pth=linear": ["pth", "path"],
    "train path=liner": ["path", "linear"],
    "train experiment=fashion10k/rectifed_flow": ["experiment", "fashion10k/rectified_flow"],
    "train trainer.max_king=3": ["trainer.max_king", "trainer.max_kimg"],
    "train +new.key=3": ["new.key"],
    "train +trainer.max_king=3": ["trainer.max_king", "trainer.max_kimg"],
    "train path": ["path", "path=VALUE"],
    "train path=linear,vp": ["path", "-m"],
    "train path=[ve,vp]": ["path"],
    "train seed=1,2 dirs.run=x -m": ["dirs.run", "dirs.sweep"],
    # numbers
    "train trainer.max_kimg=1e400": ["trainer.max_kimg", "inf"],
    "train trainer.max_kimg=inf": ["trainer.max_kimg", "inf"],
    "train trainer.max_kimg=nan": ["trainer.max_kimg", "nan"],
    "train optimizer.lr=fast": ["optimizer.lr", "fast", "number"],
    "train trainer.batch_size=1.5": ["trainer.batch_size", "1.5"],
    "train seed=-1": ["seed", "-1"],
    "check sampler.stps=4 trainer.batch_size=0 optimizer.lr=-1": [
        "sampler.stps", "sampler.steps", "trainer.batch_size", "optimizer.lr"],
    "train path=pfgmpp path.D=-1": ["path.D", "positive"],
    "eval run=R num_samples=5e9": ["num_samples"],
    "sample run=R seeds=two": ["seeds", "two"],
    # what does not fit
    "train path=edm timestep=logit_normal": ["timestep", "timestep=lognormal"],
    "train dataset=digits network.label_dim=7": ["network.label_dim", "10"],
    "train network.label_dim=0 guidance=cfg guidance.scale=2": ["guidance", "label"],
    "train dataset=toy2d": ["network", "dataset"],
    "eval run=R dataset=fashion10k": ["dataset", "R", "digits"],
    "sample run=R task.label=99": ["task.label", "99"],
    "train dataset=digits coupling=pairs pairs=P network.model_channels=16 init=R": [
        "network.model_channels", "8", "16"],
    "check experiment=cifar10/rfpp_a pairs=P init=R": ["1x8x8", "3x32x32"],
    "check --config-dir own path=no_end timestep=uniform": ["t_min", "own/path/no_end.yaml"],
    # what is not there
    "train trainer.accelerator=gpu": ["trainer.accelerator", "trainer.accelerator=cpu"],
    "sample run=R device=cuda:3": ["device", "CUDA", "device=cpu"],
    "check coupling=pairs pairs=nothere init=nowhere": ["pairs", "nothere", "init", "nowhere"],
    "train objective=slimflow teacher=nowhere": ["teacher", "nowhere"],
    "train coupling=pairs": ["pairs", "pairs="],
    "train dataset=cifar10 dataset.root=nowhere": ["dataset.root", "nowhere"],
    "train dataset=image_folder": ["dataset.archive", "dataset.archive="],
    "train dataset=image_folder dataset.archive=nowhere.zip": ["dataset.archive", "nowhere.zip"],
    "eval": ["run", "run="],
    "eval nowhere": ["run", "nowhere"],
    "eval run=nowhere": ["run", "nowhere"],
    "eval run=R checkpoint=9999": ["checkpoint", "9999"],
    "eval run=R weights=avg": ["weights", "avg", "main"],
    "eval run=R sampler=dpm_solver_v3": ["calibrate", "for=dpm_solver_v3"],
    "sample run=S": ["run", "(0, 1)", "flowexp sample run=S/0"],
    "eval run=OWN": ["nowhere_parts"],
    "import nowhere.pkl": ["file", "nowhere.pkl"],
    "train launcher=ray": ["launcher", "ray"],
    # going on
    "train dirs.run=R dataset=digits trainer.max_kimg=7": ["train run=R trainer.max_kimg=7"],
    "train run=R path=vp": ["path", "R has been trained with Linear"],
    "check run=R trainer.max_kimg=0.001": ["trainer.max_kimg", "cannot be shortened to 0.001"],
    "train R S/0": ["run", "Name one run"],
    "check eval run=R": ["flowexp eval checks its own"],
    "check from=R dataset=fashion10k": ["dataset", "R was trained on digits"],
    # looking at results
    "compare": ["flowexp compare run=a run=b"],
    "compare R": ["R", "run="],
    "table pfgmp/cifar10": ["pfgmp/cifar10", "pfgmpp/cifar10"],
    "table claims only=nothing": ["only", "nothing"],
    "table edm/table2 budget=cpus": ["budget", "cpu"],
    "list samplr": ["samplr", "sampler"],
    "completion tcsh": ["tcsh", "bash"],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(trained_once, tmp_path_factory):
    """``R`` a run, ``P`` its pairs, ``S`` two runs, ``OWN`` a run whose part cannot be imported."""
    place = tmp_path_factory.mktemp("mistakes")
    shutil.copytree(trained_once, place / "R")
    done = flowexp("pairs", "run=R", "num=64", "dirs.run=P", cwd=place)
    assert done.code == 0, done.err
    for number in "01":
        shutil.copytree(place / "R", place / "S" / number)
    shutil.copytree(place / "R", place / "OWN")
    config = place / "OWN" / "config.yaml"
    text = config.read_text(encoding="utf-8")
    sampler = "_target_: flowexp.samplers.Heun"
    assert sampler in text
    config.write_text(text.replace(sampler, "_target_: nowhere_parts.Mine"), encoding="utf-8")
    own = place / "own" / "path"
    own.mkdir(parents=True)
    (own / "no_end.yaml").write_text(
        "_target_: flowexp.paths.Path\nD: .inf\nsource: null\n"
        "schedule: {_target_: flowexp.paths.Linear, t_max: 1.0}\n",
        encoding="utf-8",
    )
    return place


def _answer(command, capsys):
    start = time.process_time()
    try:
        code = main(shlex.split(command))
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    return code, out, err, time.process_time() - start


@pytest.mark.parametrize("command", REFUSED)
def test_a_mistake_is_answered_with_its_key_and_the_remedy(command, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    code, out, err, seconds = _answer(command, capsys)
    assert code == 2, (out, err)
    assert out == ""
    said = err[err.index("flowexp: ") :]  # a slow start says so
    assert "Traceback" not in err
    assert len(said) < 1000
    for word in REFUSED[command]:
        assert word in said
    assert sorted(folder.rglob("*")) == before
    assert seconds < 8.0
