"""Constructor signatures read from source text, without importing anything.

A config check must answer at once, and importing torch takes seconds. So ``_target_`` is followed
through the source files: from the package's ``__init__`` along its imports to the class or
function, whose parameters are then known with their annotations and defaults.
"""

import ast
import functools
import importlib.machinery
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from flowexp.config.renamed import present

__all__ = [
    "Parameter",
    "Signature",
    "UnknownTargetError",
    "imported_from",
    "module_source",
    "signature_of",
]


class UnknownTargetError(Exception):
    """The dotted path names nothing.

    Args:
        dotted: The part of the path that was not found.
        siblings: Names that exist where it was looked for.
    """

    def __init__(self, dotted: str, siblings: list[str]) -> None:
        super().__init__(dotted)
        self.dotted = dotted
        self.siblings = siblings


@dataclass(frozen=True)
class Parameter:
    """One parameter: name, annotation (source text, or None), and whether it must be given."""

    name: str
    annotation: ast.expr | None
    required: bool


@dataclass(frozen=True)
class Signature:
    """The parameters a target accepts.

    Attributes:
        parameters: By name, without ``self``.
        open_ended: Whether it takes ``**kwargs`` (or could not be read to its end), so that unknown
            names cannot be called wrong.
    """

    parameters: dict[str, Parameter]
    open_ended: bool


@functools.cache
def signature_of(target: str) -> Signature | None:
    """The signature of a class or function, or None where source text does not tell.

    Args:
        target: Full dotted path.

    Raises:
        UnknownTargetError: The path names nothing.
    """
    module, _, name = present(target).rpartition(".")
    if not module:
        raise UnknownTargetError(target, [])
    found = _find(module, name, depth=0)
    if found is None:
        return None
    home, node = found
    if isinstance(node, ast.ClassDef):
        return _class_signature(home, node)
    return _parameters(node.args, skip_first=False)


def module_source(module: str) -> ast.Module | None:
    """A module's syntax tree, or None where there is no source text."""
    try:
        return _parse(module)
    except UnknownTargetError:
        return None


def imported_from(module: str, node: ast.ImportFrom) -> str:
    """The absolute name of the module that an import statement of ``module`` names."""
    return _absolute(module, node)


_Definition = ast.ClassDef | ast.FunctionDef


def _find(module: str, name: str, *, depth: int) -> tuple[str, _Definition] | None:
    tree = _parse(module)
    if tree is None or depth > 8:
        return None
    exported: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            exported.append(node.name)
            if node.name == name:
                return module, node
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                exported.append(alias.asname or alias.name)
                if (alias.asname or alias.name) == name:
                    return _find(_absolute(module, node), alias.name, depth=depth + 1)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.If | ast.Try):
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            if name in names:
                return None
    if _source_file(f"{module}.{name}") is not None:
        return None
    raise UnknownTargetError(f"{module}.{name}", [n for n in exported if not n.startswith("_")])


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    is_package = (_source_file(module) or Path()).name == "__init__.py"
    parts = module.split(".")
    base = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*base, node.module] if node.module else base)


@functools.cache
def _parse(module: str) -> ast.Module | None:
    path = _source_file(module)
    if path is None:
        top = module.split(".")[0]
        if _top_level(top) is None:
            raise UnknownTargetError(module, [])
        if _source_file(top) is not None and _source_file(module.rpartition(".")[0]) is not None:
            folder = (_source_file(module.rpartition(".")[0]) or Path()).parent
            siblings = [p.stem for p in folder.iterdir() if p.suffix == ".py" or p.is_dir()]
            raise UnknownTargetError(module, [s for s in siblings if not s.startswith("_")])
        return None
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def _source_file(module: str) -> Path | None:
    top, *rest = module.split(".")
    folder = _top_level(top)
    if folder is None:
        return None
    if folder.is_file():
        return folder if not rest else None
    for part in rest[:-1]:
        folder = folder / part
    last = folder / rest[-1] if rest else folder
    for candidate in (last / "__init__.py", last.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


@functools.cache
def _top_level(name: str) -> Path | None:
    """Folder of a top-level package, or file of a top-level module."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None) or _spec(name)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _class_signature(home: str, node: ast.ClassDef) -> Signature:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            own = _parameters(item.args, skip_first=True)
            return _with_bases(home, node, own) if own.open_ended else own
    if any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        return _dataclass_signature(node)
    return _with_bases(home, node, Signature({}, open_ended=bool(node.bases)))


def _with_bases(home: str, node: ast.ClassDef, own: Signature) -> Signature:
    """Add what the first readable base accepts: its constructor is inherited or gets **kwargs."""
    for base in node.bases:
        try:
            found = _find(home, ast.unparse(base).split("[")[0], depth=0)
        except UnknownTargetError:
            found = None
        if found is None:
            continue
        where, parent = found
        if isinstance(parent, ast.ClassDef):
            inherited = _class_signature(where, parent)
            return Signature({**inherited.parameters, **own.parameters}, inherited.open_ended)
    return own


def _dataclass_signature(node: ast.ClassDef) -> Signature:
    parameters = {}
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            name = item.target.id
            parameters[name] = Parameter(name, item.annotation, item.value is None)
    return Signature(parameters, open_ended=False)


def _parameters(arguments: ast.arguments, *, skip_first: bool) -> Signature:
    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    found = {
        a.arg: Parameter(a.arg, a.annotation, required=i < first_default)
        for i, a in enumerate(positional)
    }
    if skip_first and positional:
        del found[positional[0].arg]
    for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found[a.arg] = Parameter(a.arg, a.annotation, required=default is None)
    return Signature(found, open_ended=arguments.kwarg is not None)
