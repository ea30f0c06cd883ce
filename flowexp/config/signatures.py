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
from collections.abc import Iterator
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
    try:
        found = _find(module, name, depth=0)
    except UnknownTargetError:
        if _may_be_class(module):
            return None
        raise
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


def _may_be_class(dotted: str) -> bool:
    """Whether a dotted path may name a class, of which another name can be a method."""
    module, _, name = dotted.rpartition(".")
    if not module or _source_file(dotted) is not None:
        return False
    try:
        found = _find(module, name, depth=0)
    except UnknownTargetError:
        return False
    return found is None or isinstance(found[1], ast.ClassDef)


_Definition = ast.ClassDef | ast.FunctionDef
_DEEPEST = 8


def _find(module: str, name: str, *, depth: int) -> tuple[str, _Definition] | None:
    """Where a name of a module is defined; None where source text does not tell.

    Raises:
        UnknownTargetError: All of the module is readable, and it has no such name.
    """
    tree = _parse(module)
    if tree is None or depth > _DEEPEST:
        return None
    exported: list[str] = []
    stars: list[str] = []
    absent: UnknownTargetError | None = None
    for node in _statements(tree.body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            exported.append(node.name)
            if node.name == name:
                return module, node
        elif isinstance(node, ast.ImportFrom):
            source = imported_from(module, node)
            for alias in node.names:
                if alias.name == "*":
                    stars.append(source)
                    continue
                exported.append(alias.asname or alias.name)
                if exported[-1] != name:
                    continue
                try:
                    return _find(source, alias.name, depth=depth + 1)
                except UnknownTargetError as error:
                    # An ``except ImportError`` may say where else it comes from.
                    absent = error
        elif any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(node)):
            return None
    if absent is not None:
        raise absent
    unread = "__getattr__" in exported or _source_file(f"{module}.{name}") is not None
    for source in stars:
        try:
            found = _find(source, name, depth=depth + 1)
        except UnknownTargetError as error:
            exported += error.siblings
            continue
        if found is not None:
            return found
        unread = True
    if unread:
        return None
    raise UnknownTargetError(f"{module}.{name}", [n for n in exported if not n.startswith("_")])


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, with those inside ``if``, ``try`` and ``with``."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            handled = [statement for handler in node.handlers for statement in handler.body]
            yield from _statements([*node.body, *handled, *node.orelse, *node.finalbody])
        elif isinstance(node, ast.With):
            yield from _statements(node.body)
        else:
            yield node


def _resolve(module: str, base: ast.expr) -> tuple[str, _Definition] | None:
    """The class that ``nn.Module`` or ``Base[T]`` is inside a module; None if that is not known."""
    first, _, rest = ast.unparse(base).split("[")[0].partition(".")
    try:
        if not rest:
            return _find(module, first, depth=0)
        tree = _parse(module)
        for node in _statements([] if tree is None else tree.body):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            source = f"{imported_from(module, node)}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                if (alias.asname or alias.name) == first:
                    owner, _, name = f"{source}{alias.name}.{rest}".rpartition(".")
                    return _find(owner, name, depth=0)
    except UnknownTargetError:
        pass
    return None


def imported_from(module: str, node: ast.ImportFrom) -> str:
    """The absolute name of the module that an import statement of ``module`` names."""
    if node.level == 0:
        return node.module or ""
    is_package = (_source_file(module) or Path()).name == "__init__.py"
    parts = module.split(".")
    base = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*base, node.module] if node.module else base)


@functools.cache
def _parse(module: str) -> ast.Module | None:
    """The syntax tree of a module, or None if it is there but not as source text.

    Raises:
        UnknownTargetError: There is no such module.
    """
    path = _source_file(module)
    if path is not None:
        return ast.parse(path.read_text(encoding="utf-8"))
    package, _, last = module.rpartition(".")
    if not package:
        if module not in sys.modules and _spec(module) is None:
            raise UnknownTargetError(module, [])
        return None
    source = _source_file(package)
    if source is None:
        _parse(package)
    elif source.name == "__init__.py":
        entries = [entry.name.partition(".")[0] for entry in source.parent.iterdir()]
        if last not in entries:
            raise UnknownTargetError(module, [e for e in set(entries) if not e.startswith("_")])
    return None


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
        found = _resolve(home, base)
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
