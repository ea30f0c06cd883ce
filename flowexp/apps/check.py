"""flowexp check OVERRIDES: report all problems of a training without running it.

It takes the overrides of flowexp train. Exit code 0: no problem; 2: problems.

flowexp check experiment=fashion10k/edm path.D=128
flowexp check from=RUN coupling=pairs pairs=RUN/pairs
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from flowexp.apps.terminal import table
from flowexp.config.application import examine
from flowexp.config.from_run import author_of
from flowexp.config.overrides import in_full
from flowexp.config.problems import refuse_all
from flowexp.config.schema import own_keys
from flowexp.errors import UsageError
from flowexp.threads import AUTO, CROWDED, crowd, outlook
from flowexp.tree import without

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Check the overrides of a training run and say what they amount to."""
    verb, *rest = arguments or [""]
    if verb != "train" and "=" not in verb and own_keys(verb):
        raise UsageError(
            f"check {verb}: check is for trainings.",
            remedy=f"flowexp {verb} checks its own command line before it does anything.",
        )
    given = rest if verb == "train" else list(arguments)
    report = partial(_report, overrides=in_full("check", given))
    examine("check", report, given, config_name="train")


def _report(config: dict[str, Any], *, overrides: Sequence[str]) -> None:
    if config.get("run"):
        _judge_going_on(config, overrides)
    from flowexp.runs.assemble import build, describe
    from flowexp.runs.pair_stores import open_pairs
    from flowexp.runs.trained import require_fitting_weights, require_same_latents
    from flowexp.training import training_parts
    from flowexp.training.parts import described
    from flowexp.training.trainer import require_devices

    by, init, weights = author_of(config), config["init"], config["init_weights"]
    parts = build(config, device="meta", by=by)
    training = training_parts(config, parts, by=by)

    def fit() -> None:
        if init:
            require_fitting_weights(parts.network, run=init, weights=weights, config=config)

    def find_latents() -> None:
        parts.autoencoder.locate()
        require_same_latents(config, parts.autoencoder)

    refuse_all(
        parts.dataset.locate,
        find_latents,
        lambda: open_pairs(config, parts, check=False),
        fit,
        lambda: require_devices(training.settings),
    )
    threads = outlook(config["trainer"].get("threads", AUTO))
    crowded = crowd()
    rows = [*describe(parts, config), *described(training), ("threads", threads)]
    print(table([*rows, ("machine", f"busy: {crowded}. {CROWDED}")] if crowded else rows))
    print("sound: every part can be built, and they fit together.")


def _judge_going_on(config: dict[str, Any], overrides: Sequence[str]) -> None:
    """Refuse what the run that the config names cannot go on with."""
    from flowexp.runs.going_on import GoingOn
    from flowexp.runs.run_directory import RunDirectory

    own = without(config, ("run", "parent"))
    run = RunDirectory(config["run"])
    GoingOn(run, own, overrides, by=author_of(config), named=True).judge()
