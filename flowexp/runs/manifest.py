"""What a run was made with: enough to repeat it, and nothing that names a person or a machine."""

import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from flowexp.files import file_sha256

__all__ = ["describe_run", "described_devices", "package_versions", "parent", "processor"]

_PACKAGES = (
    "flowexp", "torch", "pytorch-lightning", "hydra-core", "omegaconf", "numpy", "scipy",
    "scikit-learn", "torchmetrics", "torch-fidelity", "timm", "pillow",
)  # fmt: skip


def describe_run(
    *,
    seed: int,
    dataset_fingerprint: str | None = None,
    command: Sequence[str] | None = None,
    parents: Sequence[dict[str, str]] = (),
) -> dict[str, Any]:
    """The manifest of a run in plain builtins.

    Args:
        seed: The run's seed.
        dataset_fingerprint: sha256 of the training data, if it has been read.
        command: The command line; by default this process's.
        parents: What the run was made from, see :func:`parent`.
    """
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": list(sys.argv if command is None else command),
        "seed": seed,
        "code": _code_revision(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": package_versions(_PACKAGES),
        "devices": described_devices(),
        "dataset_fingerprint": dataset_fingerprint,
        "parents": list(parents),
    }


def parent(path: Path, *, role: str) -> dict[str, str]:
    """A file that a run was made from, and its role, for example ``teacher`` or ``pairs``."""
    return {"role": role, "path": str(path), "sha256": file_sha256(path)}


def _code_revision() -> dict[str, Any]:
    """Commit of the git checkout flowexp runs from and whether it is changed; None elsewhere."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    dirty = None if status is None else bool(status)
    return {"commit": _git(root, "rev-parse", "HEAD"), "dirty": dirty}


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.check_output(
            command, stderr=subprocess.DEVNULL, text=True, timeout=10
        ).strip()
    except (OSError, subprocess.SubprocessError):
        return None


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """Name of this computer's processor, and how many cores it has."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = next(iter(models), name)
    return f"{name}, {os.cpu_count()} cores"


def described_devices() -> list[str]:
    """The processor with PyTorch's number of threads, and the names of the CUDA devices."""
    import torch

    cpu = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return [cpu, *(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))]
