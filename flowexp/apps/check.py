"""``flowexp check``: is a configuration sound? Nothing is run, no data is read."""

from collections.abc import Sequence
from typing import Any

from flowexp.apps.terminal import table
from flowexp.config.application import examine
from flowexp.config.from_run import author_of

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Check the overrides of a training run and say what they amount to."""
    examine("check", _report, arguments, config_name="train")


def _report(config: dict[str, Any]) -> None:
    from flowexp.runs.assemble import build, describe
    from flowexp.runs.trained import require_fitting_weights
    from flowexp.training import training_parts

    by = author_of(config)
    parts = build(config, device="meta", by=by)
    training_parts(config, parts, by=by)
    if config["init"]:
        weights = config["init_weights"]
        require_fitting_weights(parts.network, run=config["init"], weights=weights, config=config)
    print(table(describe(parts, config)))
    print("sound: every part can be built, and they fit together.")
