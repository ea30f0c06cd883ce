"""Whether a yaml value fits a type annotation, judged from the annotation's source text."""

import ast

__all__ = ["fits"]

_SCALARS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
}
_SEQUENCES = {"list", "tuple", "Sequence", "Iterable", "set", "frozenset"}
_MAPPINGS = {"dict", "Mapping", "MutableMapping"}


def fits(value: object, annotation: ast.expr | None) -> bool:
    """Whether a plain yaml value may be passed where ``annotation`` stands.

    Annotations that yaml cannot express (classes, callables, protocols) accept mappings with a
    ``_target_`` and null is only accepted where None is; unknown annotations accept anything.

    Args:
        value: None, bool, int, float, str, list or dict.
        annotation: The annotation's syntax tree, or None for no annotation.
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
        if isinstance(value, bool) and name != "bool":
            return False
        return isinstance(value, _SCALARS[name])
    if name in _SEQUENCES:
        return isinstance(value, list)
    if name in _MAPPINGS:
        return isinstance(value, dict)
    if value is None:
        return name in ("Any", "object")
    return True


def _fits_generic(value: object, annotation: ast.Subscript) -> bool:
    name = _last_name(annotation.value)
    if name == "Literal":
        inner = annotation.slice
        options = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        return value in [o.value for o in options if isinstance(o, ast.Constant)]
    if name == "Optional":
        return value is None or fits(value, annotation.slice)
    if name in _SEQUENCES:
        if not isinstance(value, list):
            return False
        inner = annotation.slice
        if isinstance(inner, ast.Tuple):
            variadic = any(isinstance(e, ast.Constant) and e.value is ... for e in inner.elts)
            item = inner.elts[0]
            if not variadic:
                return len(value) == len(inner.elts) and all(
                    fits(v, a) for v, a in zip(value, inner.elts, strict=True)
                )
            return all(fits(v, item) for v in value)
        return all(fits(v, inner) for v in value)
    return _fits_name(value, name)


def _last_name(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]
