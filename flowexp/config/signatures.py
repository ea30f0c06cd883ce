"""Constructor signatures read from source text, without importing anything.

A config check must answer at once, and importing torch takes seconds. So ``_target_`` is followed
through the source files: from the package's ``__init__`` along its imports to the class or
function, whose parameters are then known with their annotations and defaults.
"""

import ast
import functools
import pkgutil
import sys
from collections.abc import Iterator, Set
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import TypeGuard

from flowexp.config.renamed import present

__all__ = [
    "RESERVED",
    "Parameter",
    "Signature",
    "UnknownTargetError",
    "UnreadableSourceError",
    "classes_in",
    "definition_of",
    "lineage",
    "is_field",
    "is_part",
    "module_source",
    "origin",
    "parameters_of",
    "signature_of",
]

RESERVED = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}
"""Keys of a node that belong to Hydra and are not arguments."""


class UnknownTargetError(Exception):
    """The part ``dotted`` of a path names nothing; ``siblings`` are what exists beside it."""

    def __init__(self, dotted: str, siblings: list[str]) -> None:
        super().__init__(dotted)
        self.dotted = dotted
        self.siblings = siblings


class UnreadableSourceError(UnknownTargetError):
    """The source of the module ``dotted`` does not parse; ``reason`` says where."""

    def __init__(self, dotted: str, reason: SyntaxError) -> None:
        super().__init__(dotted, [])
        self.reason = reason


@dataclass(frozen=True)
class Parameter:
    """One parameter: name, annotation (source text, or None), and whether it must be given.

    ``module`` is where it is written, whose names the annotation uses.
    """

    name: str
    annotation: ast.expr | None
    required: bool
    module: str


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
    """The signature of a dotted path's class or function; None where source text does not tell.

    Raises:
        UnknownTargetError: The path names nothing.
    """
    try:
        found = definition_of(target)
    except UnreadableSourceError:
        raise
    except UnknownTargetError:
        if _may_be_class(present(target).rpartition(".")[0]):
            return None
        raise
    if found is None:
        return None
    home, node = found
    if isinstance(node, ast.ClassDef):
        return _class_signature(home, node)
    return _parameters(home, node.args, skip_first=False)


@functools.cache
def definition_of(target: str) -> "tuple[str, _Definition] | None":
    """The module and the statement that define a dotted path; None where source text does not tell.

    Raises:
        UnknownTargetError: The path names nothing.
    """
    module, _, name = present(target).rpartition(".")
    if not module:
        raise UnknownTargetError(target, [])
    return _find(module, name, depth=0)


@functools.cache
def lineage(target: str) -> tuple[str, ...]:
    """A class and all that it derives from, by where they are defined; empty if it is no class.

    Bases of other packages stand there as they are imported, ``torch.nn.Module``, and end a line.
    """
    try:
        found = definition_of(target)
    except UnknownTargetError:
        return ()
    home, node = found or ("", None)
    if not isinstance(node, ast.ClassDef):
        return ()
    lines = [_lineage_in(home, ast.unparse(base).partition("[")[0]) for base in node.bases]
    return (f"{home}.{node.name}", *(name for line in lines for name in line))


def classes_in(module: str, annotation: ast.expr | None) -> tuple[str, ...]:
    """The classes that an annotation of a module names, wherever in it, as :func:`lineage` does."""
    if annotation is None:
        return ()
    names: list[str] = []
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name | ast.Attribute):
            names.append(ast.unparse(node))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names += classes_in(module, ast.parse(node.value, mode="eval").body)
    return tuple(cls for name in names for cls in _lineage_in(module, name)[:1])


def _lineage_in(module: str, name: str) -> tuple[str, ...]:
    """The lineage of what a module knows by a name."""
    path = origin(module, name) or f"{module}.{name}"
    same = path.partition(".")[0] in ("flowexp", module.partition(".")[0])
    return lineage(path) if same else (path,)


def is_part(module: str, annotation: ast.expr) -> bool:
    """Whether an annotation names a class, of the module's package or flowexp, that is no text.

    Yaml gives such an object as a mapping with a ``_target_``.
    """
    where, found = _base(module, annotation) or (module, None)
    own = ("flowexp", module.partition(".")[0])
    if not isinstance(found, ast.ClassDef) or where.partition(".")[0] not in own:
        return False
    bases = {ast.unparse(base).rpartition(".")[2] for base in found.bases}
    return not any(base in ("str", "int", "float") or base.endswith("Enum") for base in bases)


def module_source(module: str) -> ast.Module | None:
    """A module's syntax tree, or None where there is no source text."""
    try:
        return _parse(module)
    except UnknownTargetError:
        return None


def _may_be_class(dotted: str) -> bool:
    """Whether a dotted path may name a class, of which another name can be a method."""
    module, _, name = dotted.rpartition(".")
    if not module or _spec(dotted) is not None:
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
            source = _imported_from(module, node)
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
    unread = "__getattr__" in exported or _spec(f"{module}.{name}") is not None
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
    if not (stars or _is_package(module)):
        # Names that a module imports for its own use do not count.
        exported = [
            n.name for n in _statements(tree.body) if isinstance(n, _Definition)
        ] or exported
    raise UnknownTargetError(f"{module}.{name}", [n for n in exported if not n.startswith("_")])


def _is_package(module: str) -> bool:
    spec = _spec(module)
    return spec is not None and spec.submodule_search_locations is not None


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


def _base(module: str, base: ast.expr) -> tuple[str, _Definition] | None:
    """The class that ``nn.Module`` or ``Base[T]`` is inside a module; None if that is not known."""
    name = ast.unparse(base).partition("[")[0]
    if "." in name:
        module, _, name = (origin(module, name) or "").rpartition(".")
    try:
        return _find(module, name, depth=0) if module else None
    except UnknownTargetError:
        return None


def origin(module: str, name: str) -> str | None:
    """The dotted path of what a module knows as ``nn.Module`` by an import; None without one."""
    first, _, rest = name.partition(".")
    tree = module_source(module)
    for node in _statements([] if tree is None else tree.body):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        source = f"{_imported_from(module, node)}." if isinstance(node, ast.ImportFrom) else ""
        for alias in node.names:
            # ``import a.b`` makes ``a`` known.
            path = alias.name if alias.asname else alias.name.partition(".")[0]
            if (alias.asname or path) == first:
                return f"{source}{path}.{rest}".removesuffix(".")
    return None


def _imported_from(module: str, node: ast.ImportFrom) -> str:
    """The absolute name of the module that an import statement of ``module`` names."""
    spec = _spec(module)
    package = None if spec is None else spec.parent
    try:
        return resolve_name("." * node.level + (node.module or ""), package)
    except ImportError:  # relative to no package; Python will say so
        return node.module or ""


@functools.cache
def _parse(module: str) -> ast.Module | None:
    """The syntax tree of a module, or None if it is there but not as source text.

    Raises:
        UnknownTargetError: There is no such module.
        UnreadableSourceError: Its source does not parse.
    """
    spec = _spec(module)
    if spec is not None:
        file = spec.origin or ""
        if not file.endswith(".py"):
            return None
        try:
            return ast.parse(Path(file).read_text(encoding="utf-8"), filename=file)
        except SyntaxError as error:
            raise UnreadableSourceError(module, error) from error
    package = module.rpartition(".")[0]
    if not package and module not in sys.modules:
        raise UnknownTargetError(module, [])
    if package:
        _parse(package)  # which may be what does not exist
    parent = _spec(package) if package else None
    if parent is not None and parent.submodule_search_locations is not None:
        names = [found.name for found in pkgutil.iter_modules(parent.submodule_search_locations)]
        raise UnknownTargetError(module, [name for name in names if not name.startswith("_")])
    return None


@functools.cache
def _spec(module: str) -> ModuleSpec | None:
    """How a module would be imported; unlike ``find_spec``, this imports no package."""
    package = module.rpartition(".")[0]
    if package:
        parent = _spec(package)
        folders = None if parent is None else parent.submodule_search_locations
        return None if folders is None else PathFinder.find_spec(module, folders)
    try:
        return getattr(sys.modules.get(module), "__spec__", None) or find_spec(module)
    except (ImportError, ValueError):
        return None


def _class_signature(home: str, node: ast.ClassDef) -> Signature:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            own = _parameters(home, item.args, skip_first=True)
            if item.args.kwarg is None:
                return own
            return _with_bases(home, node, own, given=_given_to_base(item, item.args.kwarg.arg))
    if _is_dataclass(node):
        return _dataclass_signature(home, node)
    return _with_bases(home, node, Signature({}, open_ended=bool(node.bases)))


def _with_bases(
    home: str, node: ast.ClassDef, own: Signature, *, given: Set[str] = frozenset()
) -> Signature:
    """Add what the first readable base accepts beyond what it is ``given`` by the class itself."""
    for base in node.bases:
        where, parent = _base(home, base) or (home, None)
        if isinstance(parent, ast.ClassDef):
            inherited = _class_signature(where, parent)
            rest = {name: p for name, p in inherited.parameters.items() if name not in given}
            return Signature({**rest, **own.parameters}, inherited.open_ended)
    return own


def _given_to_base(constructor: ast.FunctionDef, rest: str) -> set[str]:
    """What every call of the base's constructor gives it by name, beside ``**rest``.

    It would be given twice if it were in ``rest`` as well. Nothing is known of a constructor that
    reads or changes ``rest``.
    """
    nodes = list(ast.walk(constructor))
    calls = [n for n in nodes if isinstance(n, ast.Call)]
    given = [
        {keyword.arg for keyword in call.keywords if keyword.arg is not None}
        for call in calls
        if ast.unparse(call.func) == "super().__init__"
        and any(k.arg is None and ast.unparse(k.value) == rest for k in call.keywords)
    ]
    uses = sum(isinstance(n, ast.Name) and n.id == rest for n in nodes)
    return set.intersection(*given) if given and len(given) == uses else set()


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(d) for d in node.decorator_list)


def _dataclass_signature(home: str, node: ast.ClassDef) -> Signature:
    parameters: dict[str, Parameter] = {}
    for base in reversed(node.bases):
        where, parent = _base(home, base) or (home, None)
        if isinstance(parent, ast.ClassDef) and _is_dataclass(parent):
            parameters |= _class_signature(where, parent).parameters
    for item in node.body:
        if is_field(item) and isinstance(item.target, ast.Name):
            name = item.target.id
            parameters[name] = Parameter(name, item.annotation, item.value is None, home)
    return Signature(parameters, open_ended=False)


def is_field(item: ast.stmt) -> TypeGuard[ast.AnnAssign]:
    """Whether a statement of a dataclass makes a field: annotated, and not ``ClassVar``."""
    if not isinstance(item, ast.AnnAssign):
        return False
    return ast.unparse(item.annotation).partition("[")[0].rpartition(".")[2] != "ClassVar"


def _parameters(module: str, arguments: ast.arguments, *, skip_first: bool) -> Signature:
    found = [Parameter(a.arg, a.annotation, d is None, module) for a, d in parameters_of(arguments)]
    own = found[1:] if skip_first and (arguments.posonlyargs or arguments.args) else found
    return Signature({p.name: p for p in own}, open_ended=arguments.kwarg is not None)


def parameters_of(arguments: ast.arguments) -> list[tuple[ast.arg, ast.expr | None]]:
    """Every parameter, but for ``*`` and ``**``, with its default."""
    positional = [*arguments.posonlyargs, *arguments.args]
    required = [None] * (len(positional) - len(arguments.defaults))
    defaults = [*required, *arguments.defaults, *arguments.kw_defaults]
    return list(zip([*positional, *arguments.kwonlyargs], defaults, strict=True))
