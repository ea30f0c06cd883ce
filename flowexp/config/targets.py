"""Every ``_target_`` of a plain config, held against its constructor's signature."""

import ast
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flowexp.config.modules import broken_source, missing_module
from flowexp.config.option_files import NO_FILES, OptionFiles
from flowexp.config.problems import Problem, did_you_mean, nearest
from flowexp.config.renamed import renamed_argument
from flowexp.config.signatures import (
    RESERVED,
    Parameter,
    Signature,
    UnknownTargetError,
    UnreadableSourceError,
    is_part,
    origin,
    signature_of,
)
from flowexp.tree import nodes

__all__ = ["check_targets", "fits"]

_SCALARS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "Extended": (int, float),
    "str": (str,),
    "bool": (bool,),
}
_SEQUENCES = {"list", "tuple", "Sequence", "Iterable", "set", "frozenset"}
_NOT_IN_YAML = {"Callable", "Tensor"}
_INFINITE = (math.inf, -math.inf)
_MAPPINGS = {"dict", "Mapping", "MutableMapping"}
_FILES = {"pathlib.Path", "pathlib.PurePath", "os.PathLike"}
_IN_WORDS = {
    "int": "an integer",
    "float": "a finite number",
    "Extended": "a number",
    "bool": "true or false",
    "str": "a text",
}


def check_targets(
    config: Mapping[str, Any], *, missing: set[str], files: OptionFiles = NO_FILES
) -> list[Problem]:
    """Problems with targets that do not exist, unknown, missing or ill-typed arguments.

    ``missing`` are keys that have already been reported, ``files`` the yaml files of the options.
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
        except UnreadableSourceError as error:
            problems.append(broken_source(f"{key}._target_", target, error.reason))
            continue
        except UnknownTargetError as error:
            problems.append(_unknown(f"{key}._target_", target, error, files))
            continue
        if signature is not None:
            problems += _check_arguments(key, node, signature, missing, files)
    return problems


def _unknown(key: str, target: str, error: UnknownTargetError, files: OptionFiles) -> Problem:
    where, _, name = error.dotted.rpartition(".")
    if where:
        text = f"{target} does not exist ({where} has no {name})."
        return Problem(key, text, did_you_mean(name, error.siblings))
    return missing_module(key, target, module=name, near=files.folders)


def _check_arguments(
    key: str,
    node: Mapping[str, Any],
    signature: Signature,
    missing: set[str],
    files: OptionFiles,
) -> list[Problem]:
    problems = []
    short = str(node["_target_"]).rpartition(".")[2]
    for name, value in node.items():
        if name in RESERVED or f"{key}.{name}" in missing:
            continue
        parameter = signature.parameters.get(name)
        if parameter is None:
            if not signature.open_ended:
                guess = renamed_argument(node["_target_"], name)
                guess = guess or nearest(name, signature.parameters)
                remedy = f"Did you mean {key}.{guess}?" if guess else ""
                problems.append(Problem(f"{key}.{name}", f"{short} takes no such value.", remedy))
        elif parameter.annotation is not None and not fits(
            value, parameter.annotation, module=parameter.module
        ):
            problems += _misfits(f"{key}.{name}", value, parameter, short)
        elif node.get("_partial_") and value in _INFINITE:
            # The class itself is first called hours later.
            text = f"{value:g} is out of range for {short}."
            problems.append(Problem(f"{key}.{name}", text, "Give a finite number."))
    if not node.get("_partial_", False):
        for parameter in signature.parameters.values():
            if parameter.required and parameter.name not in node:
                text = f"{short} needs it, and it is not set."
                remedy = f"Give it with +{key}.{parameter.name}=..."
                own = files.own(key)
                if own is not None:
                    remedy = f"Add {parameter.name} to {own}, or give +{key}.{parameter.name}=..."
                problems.append(Problem(f"{key}.{parameter.name}", text, remedy))
    return problems


def _misfits(key: str, value: object, parameter: Parameter, target: str) -> list[Problem]:
    """The problem of an argument, or one for every misfit entry of a mapping."""
    inner = _of_entries(parameter.annotation)
    if not isinstance(value, dict) or "_target_" in value or inner is None:
        return [_misfit(key, value, parameter, target)]
    own = replace(parameter, annotation=inner)
    return [
        _misfit(f"{key}.{name}", entry, own, target)
        for name, entry in value.items()
        if not fits(entry, inner, module=parameter.module)
    ]


def _of_entries(annotation: ast.expr | None) -> ast.expr | None:
    """The annotation of the values of a mapping, ``float`` in ``Mapping[str, float] | None``."""
    for node in ast.walk(annotation) if annotation is not None else ():
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
            if _last_name(node.value) in _MAPPINGS:
                return node.slice.elts[-1]
    return None


def _misfit(key: str, value: object, parameter: Parameter, target: str) -> Problem:
    annotation = parameter.annotation
    wanted = ast.unparse(annotation) if annotation is not None else "Any"
    text = f"{value!r} is not what {target} takes here ({wanted})."
    if annotation is not None and "Literal" in _names(annotation):
        values = [n.value for n in ast.walk(annotation) if isinstance(n, ast.Constant)]
        choices = [str(v) for v in values if v is not None] + ["null"] * (None in values)
        text = f"{value!r} is not what {target} takes here."
        return Problem(key, text, f"Choose one of {', '.join(choices)}.")
    if isinstance(value, str | int | float) and not _SCALARS.keys() & _names(annotation):
        group = key.replace(".", "/")
        return Problem(key, text, f"Choose one with {group}=NAME, or give {key}._target_=CLASS.")
    names = _names(annotation)
    allowed = [word for name, word in _IN_WORDS.items() if name in names]
    allowed += ["the name of a file"] * any(origin(parameter.module, n) in _FILES for n in names)
    if names & (_SEQUENCES | _MAPPINGS) or not allowed:
        return Problem(key, text, f"Give a value of type {wanted}.")
    nodes = ast.walk(annotation) if annotation is not None else ()
    allowed += ["null"] * any(isinstance(n, ast.Constant) and n.value is None for n in nodes)
    return Problem(key, text, f"Give {' or '.join(allowed)}.")


def _names(annotation: ast.expr | None) -> set[str]:
    nodes = ast.walk(annotation) if annotation is not None else ()
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def fits(value: object, annotation: ast.expr | None, *, module: str = "") -> bool:
    """Whether a plain yaml value may be passed where ``annotation`` stands.

    Annotations that yaml cannot express (classes, callables, protocols) accept mappings with a
    ``_target_`` and null is only accepted where None is; unknown annotations accept anything. So
    do classes, unless ``module``, where the annotation stands, tells that they are no text or
    number. nan never fits, and inf fits an argument of flowexp's own classes only if that is
    annotated :data:`flowexp.requirements.Extended`.
    """
    if annotation is None:
        return True
    if isinstance(value, dict) and "_target_" in value:
        return _last_name(annotation) not in _SCALARS
    if isinstance(annotation, ast.Constant):
        if annotation.value is None:
            return value is None
        if isinstance(annotation.value, str):
            return fits(value, ast.parse(annotation.value, mode="eval").body, module=module)
        return True
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return any(fits(value, one, module=module) for one in (annotation.left, annotation.right))
    if isinstance(annotation, ast.Subscript):
        return _fits_generic(value, annotation, module)
    name = _last_name(annotation)
    if name == "float" and value in _INFINITE and module.partition(".")[0] == "flowexp":
        return False
    if isinstance(value, int | float) and origin(module, name) in _FILES:
        return False
    if name in _NOT_IN_YAML:
        return False
    if isinstance(value, str | int | float) and name not in _SCALARS:
        return not is_part(module, annotation)
    return _fits_name(value, name)


def _fits_name(value: object, name: str) -> bool:
    if name in _SCALARS:
        kind = isinstance(value, _SCALARS[name]) and isinstance(value, bool) == (name == "bool")
        return kind and value == value  # nan differs from itself
    if name in _SEQUENCES:
        return isinstance(value, list)
    if name in _MAPPINGS:
        return isinstance(value, dict)
    return value is not None or name in ("Any", "object")


def _fits_generic(value: object, annotation: ast.Subscript, module: str) -> bool:
    name = _last_name(annotation.value)
    if name == "Literal":
        inner = annotation.slice
        options = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        return value in [o.value for o in options if isinstance(o, ast.Constant)]
    if name == "Optional":
        return value is None or fits(value, annotation.slice, module=module)
    if name in _MAPPINGS and isinstance(value, dict) and isinstance(annotation.slice, ast.Tuple):
        return all(fits(v, annotation.slice.elts[-1], module=module) for v in value.values())
    if name not in _SEQUENCES or not isinstance(value, list):
        return _fits_name(value, name) and name not in _NOT_IN_YAML
    inner = annotation.slice
    if not isinstance(inner, ast.Tuple):
        return all(fits(v, inner, module=module) for v in value)
    if any(isinstance(e, ast.Constant) and e.value is ... for e in inner.elts):
        return all(fits(v, inner.elts[0], module=module) for v in value)
    same_length = len(value) == len(inner.elts)
    return same_length and all(
        fits(v, one, module=module) for v, one in zip(value, inner.elts, strict=True)
    )


def _last_name(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]
