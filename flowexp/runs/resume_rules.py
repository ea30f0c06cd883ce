"""Which changes of a configuration a started run can take without becoming another run."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from flowexp.config.later_options import without_later_options
from flowexp.config.renamed import present
from flowexp.tree import leaves, plain, without

__all__ = ["FREE_KEYS", "GROWING_KEYS", "changed_keys", "config_digest"]

FREE_KEYS: tuple[str, ...] = (
    "callbacks", "logger", "dirs", "hydra", "launcher", "debug", "local", "sampler", "guidance",
    "task", "metric", "experiment", "trainer.accelerator", "trainer.devices", "trainer.num_nodes",
    "trainer.strategy", "trainer.micro_batch", "trainer.log_every", "trainer.checkpoint_kimg",
    "trainer.keep_checkpoints",
)  # fmt: skip
"""Keys (and everything below them) that change neither the weights nor what they mean.

Devices and micro-batches keep the global batch and its draws; they change the weights by
floating-point reordering only. What samples and measures can change at any time: weights do not
depend on it.
"""

GROWING_KEYS: tuple[str, ...] = ("trainer.max_kimg",)
"""Keys that may grow: what is trained so far stays true. Where a learning-rate schedule depends on
the length, its own keys differ as well and the run is refused."""

_ABSENT = "(absent)"


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose change makes another run, each with its old and new value."""
    before, after = (dict(leaves(without_later_options(present(c)))) for c in (old, new))
    changed = {}
    for key in sorted(before.keys() | after.keys()):
        values = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if values[0] != values[1] and not _is_free(key) and not _has_grown(key, values):
            changed[key] = values
    return changed


def config_digest(config: Mapping[str, Any]) -> str:
    """sha256 (hex) of a configuration, by which processes tell that they do the same.

    Output folders are left out: only the first process's counts, and theirs may hold the time.
    """
    content = without(plain(config), ("dirs", "hydra"))
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _is_free(key: str) -> bool:
    return any(f"{key}.".startswith(f"{free}.") for free in FREE_KEYS)


def _has_grown(key: str, values: tuple[Any, Any]) -> bool:
    old, new = values
    numbers = isinstance(old, int | float) and isinstance(new, int | float)
    return key in GROWING_KEYS and numbers and new > old
