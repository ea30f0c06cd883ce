"""The installed wheel, away from the checkout, with a part from outside."""

import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]

PART = '''
"""A sampler that is not part of flowexp."""

from flowexp.samplers import FixedStepSampler


class Damped(FixedStepSampler):
    """Euler whose every step is scaled by a factor."""

    def __init__(self, *, steps: int, time_grid, factor: float = 1.0) -> None:
        super().__init__(steps=steps, time_grid=time_grid)
        self.factor = factor

    def step(self, field, z, interval, noise):
        return z + self.factor * interval.length * field.slope(z, interval.start)
'''

YAML = """
# Euler whose every step is scaled by a factor
defaults:
  - time_grid: natural
  - _self_

_target_: my_sampler.Damped
steps: 4
factor: 1.0
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds the unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed, *arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(installed), "FLOWEXP_CACHE": str(cwd / ".c")}
    return subprocess.run(
        [sys.executable, "-m", "flowexp", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_carries_config_and_data(installed):
    assert (installed / "flowexp" / "conf" / "train.yaml").is_file()
    assert (installed / "flowexp" / "py.typed").is_file()
    assert list((installed / "flowexp" / "data" / "fashion10k").glob("*.gz"))
    assert (installed / "flowexp" / "tables" / "render" / "templates" / "page.css").is_file()
    assert (installed / "flowexp" / "report" / "templates" / "report.html").is_file()
    assert not (installed / "tests").exists()
    entry = next(installed.glob("*.dist-info")) / "entry_points.txt"
    assert "flowexp = flowexp.cli:program" in entry.read_text()


def test_a_part_from_outside_needs_no_edit_of_flowexp(installed, tmp_path):
    (tmp_path / "my_sampler.py").write_text(textwrap.dedent(PART))
    (tmp_path / "my_conf" / "sampler").mkdir(parents=True)
    (tmp_path / "my_conf" / "sampler" / "damped.yaml").write_text(YAML)
    used = run(
        installed, "train", "--config-dir", "my_conf", "sampler=damped", "sampler.steps=3",
        "dataset=fashion10k", "network.model_channels=8", "trainer.max_kimg=0.064",
        "trainer.batch_size=16", "dirs.run=run", cwd=tmp_path,
    )  # fmt: skip
    assert used.returncode == 0, used.stderr
    again = run(
        installed, "sample", "--config-dir", "my_conf", "run=run", "seeds=0-3", "dirs.run=out",
        cwd=tmp_path,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "3 NFE" in again.stdout
    listed = run(installed, "list", "sampler", "--config-dir", "my_conf", cwd=tmp_path)
    assert "damped" in listed.stdout
    wrong = run(
        installed, "check", "--config-dir", "my_conf", "sampler=damped", "+sampler.stride=2",
        cwd=tmp_path,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "Damped" in wrong.stderr
