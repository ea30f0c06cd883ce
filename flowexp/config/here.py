"""Runs, pairs, data, weights and devices that a config needs and this computer lacks.

They are looked for without importing torch, by the parts' own code (``flowexp.config.stand_in``)
where it exists. Anything that cannot be decided is left to the verb, which checks again.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowexp.config.problems import Problem, refusal
from flowexp.config.rules import missing_files
from flowexp.config.run_folders import require_run
from flowexp.config.schema import starts_from_run
from flowexp.config.stored import read_manifest_of_pairs
from flowexp.errors import UsageError

__all__ = ["cuda_devices", "missing_here"]

Config = Mapping[str, Any]

# The methods of parts that look for their files, by group.
_OF_TRAINING = {"dataset": "locate", "autoencoder": "locate", "objective": "check"}
_OF_EVALUATION = {"dataset": "locate", "autoencoder": "locate", "metric": "check"}


def missing_here(config_name: str, config: Config) -> Iterator[Problem]:
    """Problems with things that a verb's plain config names and this computer lacks."""
    trains = "trainer" in config and config_name != "import"
    if starts_from_run(config_name) and not trains:
        yield from _run_at("run", config)
    if trains:
        for key in ("init", "teacher"):
            yield from _run_at(key, config)
        yield from _pairs(config)
    if trains or config_name == "eval":
        found = missing_files(config, _OF_TRAINING if trains else _OF_EVALUATION)
        yield from found
        if trains:  # a training measures nothing, but its run will be evaluated with the metrics
            metrics = missing_files({"metric": config.get("metric")}, {"metric": "check"})
            later = "The training does not need it, but flowexp eval will."
            for problem in (p for p in metrics if p not in found):
                yield replace(problem, text=f"{problem.text} {later}", refuses=False)
    yield from _devices(config)


def _run_at(key: str, config: Config) -> Iterator[Problem]:
    """Problems with the run that a key names."""
    if config.get(key) is None:
        return
    try:
        require_run(Path(str(config[key])), key=key)
    except UsageError as error:
        yield refusal(error, key=key)


def _pairs(config: Config) -> Iterator[Problem]:
    """Problems with the folders of pairs."""
    named = config.get("pairs")
    for folder in named if isinstance(named, list) else [named] * (named is not None):
        try:
            read_manifest_of_pairs(Path(str(folder)))
        except UsageError as error:
            yield refusal(error, key="pairs")


def _devices(config: Config) -> Iterator[Problem]:
    """Missing accelerators; jobs of a launcher with GPUs of its own run elsewhere."""
    if "gpus" in (config.get("launcher") or {}):
        return
    trainer = config.get("trainer")
    if isinstance(trainer, Mapping):
        kind = "cuda" if trainer.get("accelerator") == "gpu" else str(trainer.get("accelerator"))
        count = trainer.get("devices")
        wanted = count if isinstance(count, int) and count > 1 else 1
        remedy = "Use trainer.accelerator=cpu or trainer=default."
        yield from _absent(kind, wanted, key="trainer.accelerator", remedy=remedy)
    kind, _, number = str(config.get("device")).partition(":")
    wanted = int(number) + 1 if number.isdecimal() else 1
    yield from _absent(kind, wanted, key="device", remedy="Use device=cpu.")


def _absent(kind: str, wanted: int, *, key: str, remedy: str) -> Iterator[Problem]:
    name = {"cuda": "CUDA device", "mps": "Apple GPU (mps)"}.get(kind)
    count = cuda_devices() if kind == "cuda" else int(sys.platform == "darwin")
    if name is None or count is None or count >= wanted:
        return
    text = f"this computer has {f'only {count}' if count else 'no'} {name}{'s' * (count > 1)}."
    yield Problem(key, text, remedy if count == 0 else f"Use at most {count}.")


def cuda_devices() -> int | None:
    """The number of CUDA devices that this process can use; None if only torch can tell."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return 0
    if sys.platform == "darwin":
        return 0
    # ROCm and WSL have other device files.
    if sys.platform != "linux" or any(map(os.path.exists, ("/dev/kfd", "/dev/dxg"))):
        return None
    there = len([node for node in Path("/dev").glob("nvidia[0-9]*") if node.name[6:].isdecimal()])
    return there if visible is None else min(there, len(visible.split(",")))
