"""Targets that have moved: stored configs name classes by where they were when the run was made."""

from typing import Any

from flowexp.tree import mapped

__all__ = ["RENAMED", "original", "present"]

RENAMED = {
    "flowexp.apps.trained.TrainedModel": "flowexp.runs.trained.TrainedModel",
    "flowexp.evaluation.latents.FlowexpLatents": "flowexp.pipeline.latents.FlowexpLatents",
    "flowexp.evaluation.latents.ReferenceLatents": "flowexp.pipeline.latents.ReferenceLatents",
    "flowexp.metrics.InceptionScoreMetric": "flowexp.metrics.InceptionScore",
    "flowexp.metrics.KernelDistanceMetric": "flowexp.metrics.KernelDistance",
    "flowexp.metrics.PrecisionRecallMetric": "flowexp.metrics.PrecisionRecall",
    "flowexp.parameterizations.reversed_velocity.ReversedVelocityPrediction": (
        "flowexp.parameterizations.ReversedVelocityPrediction"
    ),
}
"""Old dotted path -> the present one."""

_ORIGINAL = {new: old for old, new in RENAMED.items()}


def present(config: Any) -> Any:  # noqa: ANN401 -- any config value
    """A plain config, or one target, with every moved target where it is now."""
    return mapped(config, lambda leaf: RENAMED.get(leaf, leaf) if isinstance(leaf, str) else leaf)


def original(target: str) -> str:
    """A target's first name, by which job identities know it."""
    return _ORIGINAL.get(target, target)
