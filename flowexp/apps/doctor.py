"""``flowexp doctor``: devices, data and weights, and the command that adds what is missing."""

from collections.abc import Sequence
from importlib import metadata

from flowexp.apps.list import options
from flowexp.config import conf_dir
from flowexp.config.check import MUST_BE_GIVEN, check_job
from flowexp.config.instantiate import instantiate
from flowexp.errors import UsageError

__all__ = ["main"]

_PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "torch-fidelity", "timm", "numpy", "scipy")


def main(arguments: Sequence[str]) -> None:
    """Print one line per item, with the remedy below a missing one."""
    if arguments:
        raise UsageError(
            f"doctor takes no argument {arguments[0]!r}.", remedy="Write flowexp doctor."
        )
    _versions()
    _devices()
    _folders()
    _datasets()
    _weights()


def _line(good: bool, what: str, text: str, remedy: str = "") -> None:
    print(f"{'ok     ' if good else 'missing'}  {what:<20} {text}")
    if remedy and not good:
        print(f"{'':<30}{remedy}")


def _versions() -> None:
    for name in _PACKAGES:
        try:
            _line(True, name, metadata.version(name))
        except metadata.PackageNotFoundError:
            _line(False, name, "not installed", f"pip install {name}")


def _devices() -> None:
    import os

    import torch

    _line(True, "cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    if not torch.cuda.is_available():
        _line(False, "cuda", "no device", "CPU runs work; recipes under cifar10/ need a GPU.")
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        text = (
            f"{torch.cuda.get_device_name(i)}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
        )
        _line(True, f"cuda:{i}", text)


def _folders() -> None:
    import os
    from pathlib import Path

    from flowexp.data.locations import cache_dir

    _line(True, "config groups", str(conf_dir()))
    cache = cache_dir()
    above = next(p for p in (cache, *cache.parents) if p.exists())
    writable = os.access(above, os.W_OK)
    _line(writable, "cache", str(cache), "Set FLOWEXP_CACHE to a folder you can write to.")
    _line(True, "outputs", str(Path("outputs").resolve()))


def _datasets() -> None:
    for name in options("dataset"):
        checked = check_job("train", [f"dataset={name}"])
        missing = [p.key for p in checked.problems if p.text == MUST_BE_GIVEN]
        if missing:
            _line(True, f"dataset={name}", f"needs {', '.join(missing)}")
            continue
        try:
            instantiate(checked.config["dataset"], key="dataset").locate()
            _line(True, f"dataset={name}", "ready")
        except UsageError as error:
            _line(False, f"dataset={name}", error.problem, error.remedy or "")


def _weights() -> None:
    for name in options("metric"):
        config = check_job("train", [f"metric={name}"]).config
        try:
            for metric in instantiate(config["metric"], key="metric").values():
                metric.check()
            _line(True, f"metric={name}", "ready")
        except UsageError as error:
            _line(False, f"metric={name}", error.problem, error.remedy or "")
