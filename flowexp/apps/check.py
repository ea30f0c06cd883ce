"""``flowexp check``: is a configuration sound? Nothing is run, and no data is read but headers."""

from collections.abc import Sequence
from typing import Any

from flowexp.apps.terminal import table
from flowexp.config.application import examine
from flowexp.config.problems import refuse_all
from flowexp.config.trust import USER

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Check the overrides of a training run and say what they amount to."""
    examine("check", _report, arguments, config_name="train")


def _report(config: dict[str, Any]) -> None:
    from flowexp.runs.assemble import build, describe
    from flowexp.runs.pair_stores import open_pairs
    from flowexp.training import training_parts
    from flowexp.training.trainer import require_devices

    parts = build(config, device="meta", by=USER)
    settings = training_parts(config, parts, by=USER).settings
    refuse_all(
        parts.dataset.locate,
        lambda: open_pairs(config, parts, check=False),
        lambda: require_devices(settings),
    )
    print(table(describe(parts, config)))
    print("sound: every part can be built, and they fit together.")
