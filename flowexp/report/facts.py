"""Short facts about a run: its choices, the cost of its training, its origin."""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from flowexp.report.run_record import RunRecord, StoredEvaluation
from flowexp.tables.render.numbers import mean_text, number_text

__all__ = [
    "LAST_LOSS",
    "choice_facts",
    "commands",
    "losses_differ_in",
    "manifest_facts",
    "score_text",
    "training_facts",
]

LAST_LOSS = "last loss"
_CHOICES = ("experiment", "dataset", "path", "coupling", "timestep", "network", "parameterization",
            "objective", "sampler", "guidance", "task")  # fmt: skip
_MAKES_THE_LOSS = ("dataset", "path", "timestep", "parameterization", "objective")
_NOT_CHOSEN = ("None", "none", "null")


def choice_facts(run: RunRecord) -> dict[str, str]:
    """The chosen option of every group that makes the method."""
    choices = run.manifest.get("choices", {})
    chosen = {group: str(choices[group]) for group in _CHOICES if group in choices}
    return {group: option for group, option in chosen.items() if option not in _NOT_CHOSEN}


def training_facts(run: RunRecord) -> dict[str, str]:
    """Progress and cost of the training, as far as known."""
    wanted = (run.config.get("trainer") or {}).get("max_kimg")
    kimg, seconds = run.last("kimg"), run.last("time/seconds")
    facts = {"trained": "not yet" if math.isnan(kimg) else f"{kimg:g} of {wanted or '?'} kimg"}
    if not math.isnan(seconds):
        facts["seconds"] = f"{seconds:,.0f}"
    if seconds > 0 and kimg > 0:
        facts["images/s"] = f"{1000 * kimg / seconds:,.0f}"
    if not math.isnan(run.last("train/loss")):
        facts[LAST_LOSS] = number_text(run.last("train/loss"))
    if run.parameters is not None:
        facts["parameters"] = f"{run.parameters:,}"
    facts["device"] = run.devices
    facts["seed"] = str(run.config.get("seed", "not known"))
    facts["code"] = _revision(run.manifest)
    return facts


def losses_differ_in(runs: Sequence[RunRecord]) -> list[str]:
    """The groups that make the losses of runs different quantities; empty if they are the same."""
    return [
        group
        for group in _MAKES_THE_LOSS
        if any(run.config.get(group) != runs[0].config.get(group) for run in runs)
    ]


def manifest_facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Versions, hardware, data and parents."""
    if not manifest:
        return {"manifest": "none was written"}
    packages = manifest.get("packages", {})
    facts = {
        "created": str(manifest.get("created", "not known")),
        "code": _revision(manifest),
        "python": str(manifest.get("python", "not known")),
        "platform": str(manifest.get("platform", "not known")),
        "devices": ", ".join(map(str, manifest.get("devices", []))) or "not known",
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
        "data": str(manifest.get("dataset_fingerprint") or "not known"),
    }
    parents = manifest.get("parents") or []
    named = parents.items() if isinstance(parents, Mapping) else enumerate(parents, start=1)
    for name, entry in named:
        stated = entry.items() if isinstance(entry, Mapping) else [("", entry)]
        facts[f"parent {name}"] = ", ".join(f"{key} {value}".strip() for key, value in stated)
    return facts if parents else {**facts, "parents": "none"}


def score_text(evaluation: StoredEvaluation) -> str:
    """The value; over several ranges of seeds its mean and spread."""
    count, mean = len(evaluation.values), evaluation.mean
    if count == 1:
        return number_text(mean)
    return mean_text(mean, spread=evaluation.spread, count=count, of="seed range")


def commands(run: RunRecord) -> list[str]:
    """The command lines that make the run and its evaluations again."""
    given = [str(part) for part in run.manifest.get("command", [])]
    verb = given[1] if len(given) > 1 and given[1].isalpha() else "train"
    made = shlex.join(["flowexp", verb, *_outside_folder(given), *run.overrides])
    evals = [["flowexp", "eval", *one.overrides] for one in run.evaluations if one.overrides]
    return list(dict.fromkeys([made, *map(shlex.join, evals)]))


def _outside_folder(command: Sequence[str]) -> list[str]:
    """The folder of further groups that a command line names."""
    for option in ("--config-dir", "-cd"):
        if option in command[:-1]:
            return ["--config-dir", command[command.index(option) + 1]]
    return []


def _revision(manifest: Mapping[str, Any]) -> str:
    code = manifest.get("code") or {}
    dirty = " with uncommitted changes" if code.get("dirty") else ""
    return str(code["commit"])[:12] + dirty if code.get("commit") else "not known"
