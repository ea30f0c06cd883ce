"""Every ``_target_`` of a plain config, held against its constructor's signature."""

import ast
from collections.abc import Mapping
from typing import Any

from flowexp.config.problems import Problem, did_you_mean, nearest
from flowexp.config.signatures import Signature, UnknownTargetError, signature_of
from flowexp.tree import nodes

__all__ = ["RESERVED", "check_targets", "fits"]

RESERVED = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}
"""Keys of a node that are Hydra's, not arguments."""

_SCALARS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
}
_SEQUENCES = {"list", "tuple", "Sequence", "Iterable", "set", "frozenset"}
_MAPPINGS = {"dict", "Mapping", "MutableMapping"}


def check_targets(config: Mapping[str, Any], *, missing: set[str]) -> list[Problem]:
    """Problems with targets that do not exist, unknown, missing or ill-typed arguments.

    ``missing`` are keys that have been reported already.
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
        elif parameter.annotation is not None and not fits(value, parameter.annotation):
            wanted = ast.unparse(parameter.annotation)
            text = f"{value!r} is not what {short} takes here ({wanted})."
            problems.append(Problem(f"{key}.{name}", text, f"Give a value of type {wanted}."))
    if not node.get("_partial_", False):
        for parameter in signature.parameters.values():
            if parameter.required and parameter.name not in node:
                text = f"{short} needs it, and it is not set."
                remedy = f"Give it with +{key}.{parameter.name}=..."
                problems.append(Problem(f"{key}.{parameter.name}", text, remedy))
    return problems


def fits(value: object, annotation: ast.expr | None) -> bool:
    """Whether a plain yaml value may be passed where ``annotation`` stands.

    Annotations that yaml cannot express (classes, callables, protocols) accept mappings with a
    ``_target_`` and null is only accepted where None is; unknown annotations accept anything.
    """
    if annotation is None:
        return True
    if isinstance(value, dict) and "_target_" in value:
        return _last_name(annotation) not in _SCALARS
    if isinstance(annotation, ast.Constant):
        if annotation.value is None:
            return value is None
        if isinstance(annotation.value, str):
            return fits(value, ast.parse(annotation.value, mode="eval").body)
        return True
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return fits(value, annotation.left) or fits(value, annotation.right)
    if isinstance(annotation, ast.Subscript):
        return _fits_generic(value, annotation)
    return _fits_name(value, _last_name(annotation))


def _fits_name(value: object, name: str) -> bool:
    if name in _SCALARS:
        return isinstance(value, _SCALARS[name]) and isinstance(value, bool) == (name == "bool")
    if name in _SEQUENCES:
        return isinstance(value, list)
    if name in _MAPPINGS:
        return isinstance(value, dict)
    return value is not None or name in ("Any", "object")


def _fits_generic(value: object, annotation: ast.Subscript) -> bool:
    name = _last_name(annotation.value)
    if name == "Literal":
        inner = annotation.slice
        options = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        return value in [o.value for o in options if isinstance(o, ast.Constant)]
    if name == "Optional":
        return value is None or fits(value, annotation.slice)
    if name not in _SEQUENCES or not isinstance(value, list):
        return _fits_name(value, name)
    inner = annotation.slice
    if not isinstance(inner, ast.Tuple):
        return all(fits(v, inner) for v in value)
    if any(isinstance(e, ast.Constant) and e.value is ... for e in inner.elts):
        return all(fits(v, inner.elts[0]) for v in value)
    same_length = len(value) == len(inner.elts)
    return same_length and all(map(fits, value, inner.elts))


def _last_name(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]
