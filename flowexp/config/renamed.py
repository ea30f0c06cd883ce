"""Names that have changed: stored configs name parts as they were called when the run was made."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "RENAMED",
    "RENAMED_ARGUMENTS",
    "original",
    "present",
    "renamed_argument",
    "with_present_arguments",
]

_FLOW_MAP = "flowexp.objectives.flow_map"

RENAMED = {
    "flowexp.apps.trained.TrainedModel": "flowexp.runs.trained.TrainedModel",
    "flowexp.evaluation.latents.FlowexpLatents": "flowexp.pipeline.latents.FlowexpLatents",
    "flowexp.evaluation.latents.ReferenceLatents": "flowexp.pipeline.latents.ReferenceLatents",
    "flowexp.metrics.InceptionScoreMetric": "flowexp.metrics.InceptionScore",
    "flowexp.metrics.KernelDistanceMetric": "flowexp.metrics.KernelDistance",
    "flowexp.metrics.PrecisionRecallMetric": "flowexp.metrics.PrecisionRecall",
    f"{_FLOW_MAP}.Average": f"{_FLOW_MAP}.EMATarget",
    f"{_FLOW_MAP}.Doubling": f"{_FLOW_MAP}.ShortcutLeg",
    f"{_FLOW_MAP}.Itself": f"{_FLOW_MAP}.OnlineTarget",
    f"{_FLOW_MAP}.MixAsTold": f"{_FLOW_MAP}.GuidanceScaleMix",
    f"{_FLOW_MAP}.Truncated": f"{_FLOW_MAP}.TruncatedTarget",
    f"{_FLOW_MAP}.Unchanged": f"{_FLOW_MAP}.Unweighted",
    "flowexp.parameterizations.reversed_velocity.ReversedVelocityPrediction": (
        "flowexp.parameterizations.ReversedVelocityPrediction"
    ),
}
"""Old dotted path -> the present one."""

RENAMED_ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    "flowexp.parameterizations.FlowMap": {"tells": "conditions_on"},
}
"""Present dotted path -> old name of an argument -> its present name."""

_ORIGINAL = {new: old for old, new in RENAMED.items()}
_ORIGINAL_ARGUMENTS = {
    target: {new: old for old, new in names.items()} for target, names in RENAMED_ARGUMENTS.items()
}


def present(config: Any) -> Any:  # noqa: ANN401 -- any config value
    """A plain config, or one target, with every target and argument by its present name."""
    return _renamed(config, RENAMED, RENAMED_ARGUMENTS)


def with_present_arguments(config: Any) -> Any:  # noqa: ANN401 -- any config value
    """A plain config with every argument by its present name, and targets as they are."""
    return _renamed(config, {}, RENAMED_ARGUMENTS)


def original(config: Any) -> Any:  # noqa: ANN401 -- any config value
    """A plain config, or one target, by the first names: job identities are made of these."""
    return _renamed(config, _ORIGINAL, _ORIGINAL_ARGUMENTS)


def renamed_argument(target: object, name: str) -> str | None:
    """The present name of an argument of a class, if ``name`` is an old one."""
    return RENAMED_ARGUMENTS.get(RENAMED.get(str(target), str(target)), {}).get(name)


def _renamed(
    value: Any,  # noqa: ANN401 -- any config value
    targets: Mapping[str, str],
    arguments: Mapping[str, Mapping[str, str]],
) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        target = str(value.get("_target_"))
        names = arguments.get(RENAMED.get(target, target), {})
        # A config that has both names keeps both, so that the old one is refused.
        names = {old: new for old, new in names.items() if new not in value}
        return {
            names.get(str(key), str(key)): _renamed(item, targets, arguments)
            for key, item in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_renamed(item, targets, arguments) for item in value]
    return targets.get(value, value) if isinstance(value, str) else value
