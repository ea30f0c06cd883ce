"""What `make` would run, without running it."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def recipe(*arguments: str, folder: Path) -> list[str]:
    command = ["make", "--dry-run", f"VENV={folder / 'venv'}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "pip install" in line]


def test_an_ordinary_install_uses_the_index_of_pips_settings(tmp_path: Path) -> None:
    _, everything = recipe("install", folder=tmp_path)
    assert everything.endswith('--constraint constraints.txt --editable ".[dev]"')
    assert "index" not in everything
    assert "--quiet" not in everything, "it takes minutes, so it shows what it does"


@pytest.mark.parametrize(
    ("index", "option"),
    [
        ([], " --index-url https://download.pytorch.org/whl/cpu"),
        (["TORCH_INDEX=https://my.org/simple"], " --index-url https://my.org/simple"),
        (["TORCH_INDEX="], ""),
    ],
)
def test_the_cpu_build_of_torch_comes_first(tmp_path: Path, index: list[str], option: str) -> None:
    ordinary = recipe("install", folder=tmp_path)
    _, torch, rest = recipe("install", "TORCH=cpu", *index, folder=tmp_path)
    assert " ".join(torch.split()).endswith(f"--no-deps{option} torch torchvision")
    assert rest == ordinary[-1]


def test_the_pinned_versions_name_no_index() -> None:
    assert "://" not in (ROOT / "constraints.txt").read_text(encoding="utf-8")
