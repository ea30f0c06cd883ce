"""By what a stored number is found again: the digest of everything that determines it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowexp.tree import digest

if TYPE_CHECKING:
    from flowexp.data import ImageArrays
    from flowexp.runs.opening import OpenedRun

__all__ = ["NOT_OF_A_SCORE", "digests_of"]

NOT_OF_A_SCORE = ("run", "checkpoint", "weights", "repeats", "num_samples", "seeds",
                  "selection", "metric")  # fmt: skip
"""What a score with known weights, metric and seeds does not depend on, besides what a job's result
does not depend on."""


def digests_of(
    config: Mapping[str, Any],
    opened: "OpenedRun",
    *,
    metrics: Mapping[str, Any],
    selection: str,
    arrays: "Sequence[ImageArrays | None]",
) -> Callable[[Sequence[int]], dict[str, str]]:
    """A function of the seeds that gives the digest of each metric's numbers.

    Args:
        config: Of the evaluation.
        opened: The run, with the weights that are scored.
        metrics: What is measured, by name.
        selection: Which weights of the training, as the protocol states them.
        arrays: Reference and held-out data.
    """
    from flowexp.pipeline import seeds_text
    from flowexp.tables.jobs import significant

    weights = opened.weights
    common = [
        significant({k: v for k, v in config.items() if k not in NOT_OF_A_SCORE}, verb="eval"),
        [weights.sha256, weights.name, opened.transform, selection],
        opened.pipeline.sampling,
        [None if one is None else one.fingerprint for one in arrays],
    ]
    # Of metric=auto, which one it is depends on the files that are there.
    own = {name: [config["metric"][name], getattr(m, "name", None)] for name, m in metrics.items()}
    return lambda seeds: {
        name: digest([*common, metric, seeds_text(seeds)]) for name, metric in own.items()
    }
