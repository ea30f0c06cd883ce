"""What the README shows works as shown."""

import json
import re
import shlex
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from flowexp.apps.list import options
from flowexp.cli import VERBS
from flowexp.config.check import check
from flowexp.config.stored import PAIRS_FORMAT
from flowexp.samplers import Euler
from tests.e2e.command import flowexp
from tests.evaluation.tiny import SHAPE, tiny_model

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def commands() -> list[str]:
    found = []
    for line in README.splitlines():
        if line.startswith("    flowexp "):
            found += [part.strip() for part in line.split("#")[0].split(";")]
    return found


# What keeps a command from running for hours: it then shows what it would do.
DRY = {"table": ("dry=commands", "seeds=[0]")} | dict.fromkeys(
    ["train", "eval", "sample", "pairs", "calibrate"], ("--cfg=job",)
)
# Of several runs there is no one config to show.
SHORT = ("metric=fd_raw", "num_samples=4", "sampler.steps=1")


def provide(folder: Path, command: str, run: Path) -> None:
    """What a command of the README starts from: runs, folders of runs, and pictures."""
    for name in set(re.findall(r"outputs/[\w.]+(?:/\.{3})?", command)):
        sweep = name.startswith("outputs/sweep")
        for copy in [f"{name}/0", f"{name}/1"] if sweep else [name]:
            shutil.copytree(run, folder / copy)
    for name in re.findall(r"pairs=(\S+)", command):
        (folder / name).mkdir(parents=True)
        manifest = {"format": PAIRS_FORMAT, "shape": [1, 8, 8]}
        (folder / name / "manifest.json").write_text(json.dumps(manifest))
    picture = folder / "my_pictures" / "rose" / "1.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (70, 66)).save(picture)
    if "dataset.archive=flowers-64.zip" in command:
        with zipfile.ZipFile(folder / "flowers-64.zip", "w") as archive:
            Image.new("RGB", (64, 64)).save(picture)
            archive.write(picture, "00000/img00000000.png")


@pytest.mark.e2e
@pytest.mark.parametrize("command", commands())
def test_every_command_is_sound(command, trained_once, tmp_path):
    verb, *arguments = shlex.split(command)[1:]
    provide(tmp_path, command, trained_once)
    if "--config-dir" in arguments:
        groups = tmp_path / "my_conf" / "sampler"
        groups.mkdir(parents=True)
        (groups / "mine.yaml").write_text("_target_: flowexp.samplers.Euler\nsteps: 3\n")
    verb = "check" if "-m" in arguments else verb
    of_several = verb == "eval" and "outputs/sweep" in command
    dry = SHORT if of_several else DRY.get(verb, ())
    done = flowexp(verb, *arguments, *dry, cwd=tmp_path)
    # doctor's exit code says whether something is missing on this machine
    assert done.code in ((0, 1) if verb == "doctor" else (0,)), done.err
    assert done.out


def test_the_overrides_of_the_table_are_sound():
    tables = [line.split("|") for line in README.splitlines() if line.startswith("| ")]
    checked = 0
    for cells in tables:
        for text in re.findall(r"`([^`]*=[^`]*)`", cells[2]):
            overrides = text.split()
            # What begins with another verb starts from a run, which is not there.
            if overrides[0] in VERBS or "=" not in overrides[0]:
                continue
            assert [str(p) for p in check("train", overrides).problems] == [], cells
            checked += 1
    assert checked >= 10


@pytest.mark.e2e
def test_the_library_example_runs(trained_once, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_once, tmp_path / "outputs" / "quickstart")
    done = flowexp(
        "eval", "run=outputs/quickstart", "metric=fd_raw", "num_samples=80", cwd=tmp_path
    )
    assert done.code == 0, done.err
    names: dict[str, object] = {}
    small = code.replace("num_samples=2000", "num_samples=40")
    exec(compile(small, "README.md", "exec"), names)
    assert (tmp_path / "bags.png").is_file()
    assert "FD[EfficientNet-Lite0 b4, 64px] 40 on digits" in capsys.readouterr().out
    assert len(names["runs"]) == 1


def test_the_sampler_of_the_contributing_guide_is_euler():
    (code,) = re.findall(r"```python\n(.*?)```", CONTRIBUTING, re.DOTALL)
    names: dict[str, type] = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    model = tiny_model()
    e = model.path.source.sample((2, *SHAPE), rng=torch.Generator().manual_seed(0))
    found, expected = (s(steps=4).sample(model, e) for s in (names["MyEuler"], Euler))
    assert torch.equal(found.x, expected.x)
    assert found.nfe.tolist() == [4, 4]


def test_every_group_has_a_row_in_the_contributing_guide():
    rows = {cell.strip() for line in CONTRIBUTING.splitlines() if line.startswith("   | ")
            for cell in line.split("|")[1].split(",")}  # fmt: skip
    # where and how, not what: these hold values, not parts
    settings = {"trainer", "dirs", "launcher", "experiment", "local", "debug"}
    wanted = (
        set(check("train", []).choices) - settings - {"sampler/variable", "sampler/perturbation"}
    )
    wanted = {group for group in wanted if "/" not in group or group == "sampler/time_grid"}
    assert wanted <= rows


def test_the_readme_is_short():
    assert len(README.splitlines()) < 150


def test_named_experiments_exist():
    known = set(options("experiment"))
    named = re.findall(r"experiment=([a-z0-9_]+/[a-z0-9_]+)", README)
    named += re.findall(r"`(cifar10/[a-z_]+)`", README)
    assert named
    assert set(named) <= known
