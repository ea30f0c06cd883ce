"""Every ``_target_`` of a plain config, held against its constructor's signature."""

from collections.abc import Mapping
from typing import Any

from flowexp.config.annotations import fits
from flowexp.config.nearest import did_you_mean, nearest
from flowexp.config.problems import Problem
from flowexp.config.signatures import Signature, UnknownTargetError, signature_of
from flowexp.tree import nodes

__all__ = ["RESERVED", "check_targets"]

RESERVED = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}
"""Keys of a node that are Hydra's, not arguments."""


def check_targets(config: Mapping[str, Any], *, missing: set[str]) -> list[Problem]:
    """Problems with targets that do not exist, unknown, missing or ill-typed arguments.

    Args:
        config: Plain, resolved config.
        missing: Keys already reported as missing or unresolvable.
    """
    problems: list[Problem] = []
    for key, node in nodes(config):
        if "_target_" not in node:
            continue
        target = node["_target_"]
        if not isinstance(target, str):
            problems.append(Problem(f"{key}._target_", f"{target!r} is not a dotted path.", ""))
            continue
        try:
            signature = signature_of(target)
        except UnknownTargetError as error:
            problems.append(_unknown(f"{key}._target_", target, error))
            continue
        if signature is not None:
            problems += _check_arguments(key, node, signature, missing)
    return problems


def _unknown(key: str, target: str, error: UnknownTargetError) -> Problem:
    where, _, name = error.dotted.rpartition(".")
    if where:
        text = f"{target} does not exist ({where} has no {name})."
        return Problem(key, text, did_you_mean(name, error.siblings))
    text = f"{target} cannot be imported: there is no module {name}."
    return Problem(key, text, f"Run the command in the folder that holds {name}, or install it.")


def _check_arguments(
    key: str, node: Mapping[str, Any], signature: Signature, missing: set[str]
) -> list[Problem]:
    problems = []
    short = str(node["_target_"]).rpartition(".")[2]
    for name, value in node.items():
        if name in RESERVED or f"{key}.{name}" in missing:
            continue
        parameter = signature.parameters.get(name)
        if parameter is None:
            if not signature.open_ended:
                guess = nearest(name, signature.parameters)
                remedy = f"Did you mean {key}.{guess}?" if guess else ""
                problems.append(Problem(f"{key}.{name}", f"{short} takes no such value.", remedy))
        elif not fits(value, parameter.annotation):
            wanted = _unparse(parameter.annotation)
            text = f"{value!r} is not what {short} takes here ({wanted})."
            problems.append(Problem(f"{key}.{name}", text, f"Give a value of type {wanted}."))
    if not node.get("_partial_", False):
        for parameter in signature.parameters.values():
            if parameter.required and parameter.name not in node:
                text = f"{short} needs it, and it is not set."
                remedy = f"Give it with +{key}.{parameter.name}=..."
                problems.append(Problem(f"{key}.{parameter.name}", text, remedy))
    return problems


def _unparse(annotation: object) -> str:
    import ast

    return ast.unparse(annotation) if isinstance(annotation, ast.AST) else "any type"
