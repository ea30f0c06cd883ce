"""The identity of a stored score: a digest of everything that determines it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowexp.tree import digest

if TYPE_CHECKING:
    from flowexp.data import ImageArrays
    from flowexp.runs.opening import OpenedRun

__all__ = ["NOT_OF_A_SCORE", "digests_of"]

NOT_OF_A_SCORE = ("run", "checkpoint", "weights", "repeats", "num_samples", "seeds",
                  "selection", "metric")  # fmt: skip
"""Keys that are left out of the digest, besides those that no job's result depends on."""


def digests_of(
    config: Mapping[str, Any],
    opened: "OpenedRun",
    *,
    metrics: Mapping[str, Any],
    selection: str,
    arrays: "Sequence[ImageArrays | None]",
) -> Callable[[Sequence[int]], dict[str, str]]:
    """A function that maps seeds to the digest of each metric's score.

    Args:
        config: Config of the evaluation.
        opened: The run with the weights to score.
        metrics: Metrics by name.
        selection: How the weights were selected, as the protocol states it.
        arrays: Reference and held-out data.
    """
    from flowexp.pipeline import seeds_text
    from flowexp.tables.jobs import significant

    weights = opened.weights
    common: list[Any] = [
        significant({k: v for k, v in config.items() if k not in NOT_OF_A_SCORE}, verb="eval"),
        [weights.sha256, weights.name, opened.transform, selection],
        opened.pipeline.sampling,
        [None if one is None else one.fingerprint for one in arrays],
    ]
    if opened.built.autoencoder.encodes:
        common.append(opened.built.autoencoder.identity())
    # Which metric metric=auto chooses depends on the weight files on this computer.
    own = {name: [config["metric"][name], getattr(m, "name", None)] for name, m in metrics.items()}
    return lambda seeds: {
        name: digest([*common, metric, seeds_text(seeds)]) for name, metric in own.items()
    }
