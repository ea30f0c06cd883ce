"""flowexp doctor: check devices, data and weights; say how to add missing ones.

flowexp doctor
"""

import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from flowexp.apps.list import options
from flowexp.apps.terminal import beside
from flowexp.config import conf_dir
from flowexp.config.check import check_job
from flowexp.config.instantiate import instantiate
from flowexp.config.resolved import MUST_BE_GIVEN
from flowexp.errors import UsageError
from flowexp.threads import CROWDED, crowd, outlook, usable_cores

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
    for group in ("dataset", "metric"):
        for name in options(group):
            _option(group, name)


def _line(good: bool, what: str, text: str, remedy: str = "", *, bad: str = "missing") -> None:
    print(beside(f"{'ok' if good else bad:<7}  {what:<20} ", text))
    if remedy and not good:
        print(beside(" " * 30, remedy))


def _versions() -> None:
    for name in _PACKAGES:
        try:
            _line(True, name, metadata.version(name))
        except metadata.PackageNotFoundError:
            _line(False, name, "not installed", f"pip install {name}")


def _devices() -> None:
    import torch

    crowded, cores = crowd(), f"{usable_cores()} of {os.cpu_count()} cores usable"
    _line(crowded is None, "cpu", "; ".join(filter(None, (cores, crowded))), CROWDED, bad="busy")
    _line(True, "threads", outlook())
    if not torch.cuda.is_available():
        _line(False, "cuda", "no device", "CPU runs work; recipes under cifar10/ need a GPU.")
    for i in range(torch.cuda.device_count()):
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(i))
        name = torch.cuda.get_device_name(i)
        _line(True, f"cuda:{i}", f"{name}, {free:.0f} of {total:.0f} GiB free")


def _folders() -> None:
    from flowexp.data.locations import cache_dir

    _line(True, "config groups", str(conf_dir()))
    cache = cache_dir()
    above = cache and next(p for p in (cache, *cache.parents) if os.path.exists(p))
    writable = above is not None and above.is_dir() and os.access(above, os.W_OK)
    where = "none, since the user has no home" if cache is None else str(cache)
    _line(writable, "cache", where, "Set FLOWEXP_CACHE to a folder you can write to.")
    _line(True, "outputs", str(Path("outputs").resolve()))


def _option(group: str, name: str) -> None:
    """Whether the data of a data set, or the weights of metrics, are there."""
    checked = check_job("train", [f"{group}={name}"])
    missing = [p.key for p in checked.problems if p.text == MUST_BE_GIVEN]
    if missing and group == "dataset":
        _line(True, f"{group}={name}", f"needs {', '.join(missing)}")
        return
    try:
        part = instantiate(checked.config[group], key=group)
        if group == "dataset":
            part.locate()
        else:
            for metric in part.values():
                metric.check()
        _line(True, f"{group}={name}", "ready")
    except UsageError as error:
        _line(False, f"{group}={name}", error.problem, error.remedy or "")
