"""Stand-ins: objects that a config describes, as far as source text tells, without an import.

A config check must answer before torch is imported, yet what constructors refuse and what parts
need of each other (``flowexp.requirements``) is Python. So the plain Python of a part is run
without its module: a stand-in takes the arguments of a config node, runs the statements of
``__init__`` one by one, and evaluates properties and methods when they are read. Whatever needs an
import (torch, files) raises :class:`UnknownError` instead, and nothing is concluded from it.
"""

import __future__

import ast
import copy
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from flowexp.config.reading import READING
from flowexp.config.signatures import is_field, module_source, origin, parameters_of
from flowexp.requirements import Part, Parts, UnknownError, Unmet

__all__ = ["StandIn", "class_value", "evaluated", "guarded"]

# Modules that parts may use here: light, and without side effects.
_SHARED = frozenset(
    {"collections.abc", "flowexp.errors", "flowexp.requirements", "itertools", "math", "typing"}
)
_BUILTINS = (
    abs, all, any, bool, dict, enumerate, filter, float, frozenset, getattr, hasattr, int,
    isinstance, iter, len, list, map, max, min, next, object, range, repr, reversed, round, set,
    sorted, str, sum, tuple, type, vars, zip, AttributeError, IndexError, KeyError,
    NotImplementedError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
# Not Exception: a handler of it would take what is unknown for a failure.

# Bases that are no part's; any other one that cannot be read may be derived from any class.
_INERT = frozenset({"ABC", "Enum", "Generic", "Module", "NamedTuple", "Protocol", "object"})


def evaluated(target: str, arguments: Mapping[str, Any], *, reads: bool = False) -> Any:  # noqa: ANN401 - as config says
    """What the class or function at the dotted path ``target`` gives for these arguments.

    Arguments are values and stand-ins of nested parts; a missing argument is unknown. The code can
    look at files only if ``reads``.

    Raises:
        UnknownError: Source text does not tell.
        ValueError: The constructor refused its arguments.
    """
    module, _, name = target.rpartition(".")
    with guarded(target):
        return _Source.of(module, reads).value(name)(**arguments)


def class_value(target: str, name: str) -> Any:  # noqa: ANN401 - any constant
    """The constant ``name`` of the class ``target`` or of a base.

    Raises:
        UnknownError: Source text does not tell.
    """
    module, _, cls = target.rpartition(".")
    with guarded(target):
        return getattr(_Source.of(module).value(cls), name)


class _Names(dict[str, Any]):
    """Built-in names of evaluated code: allowed built-ins, then what its module defines."""

    def __init__(self, source: "_Source") -> None:
        super().__init__({builtin.__name__: builtin for builtin in _BUILTINS})
        self.source = source

    def __missing__(self, name: str) -> Any:  # noqa: ANN401
        value = self[name] = self.source.value(name)
        return value


@functools.cache
def _source(module: str, reads: bool) -> "_Source":
    return _Source(module, reads)


class _Source:
    """The names that a module defines or imports, evaluated when they are needed."""

    def __init__(self, module: str, reads: bool) -> None:
        self.module = module
        self.reads = reads
        self.nodes: dict[str, ast.stmt] = {}
        tree = module_source(module)
        for node in _with_typed_imports(tree.body) if tree else ():
            self.nodes |= dict.fromkeys(_defined_names(node), node)
        self.names = {"__builtins__": _Names(self)}
        self.found: dict[str, Any] = {}

    @staticmethod
    def of(module: str, reads: bool = False) -> "_Source":
        """The cached instance for a module, so that each class exists once."""
        return _source(module, reads)

    def value(self, name: str) -> Any:  # noqa: ANN401
        """A class, function or constant.

        Raises:
            UnknownError: It is none of this module's, or it needs an import.
        """
        if name not in self.found:
            self.found[name] = self._value(name)
        return self.found[name]

    def _value(self, name: str) -> Any:  # noqa: ANN401
        node = self.nodes.get(name)
        if isinstance(node, ast.ClassDef):
            return _Class(self, node)
        if isinstance(node, ast.FunctionDef):
            return self.function(node)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            return self.constant(node.value)
        if isinstance(node, ast.Import | ast.ImportFrom):
            path = origin(self.module, name) or ""
            module, _, original = path.rpartition(".")
            if path in _SHARED:
                return importlib.import_module(path)
            if module in _SHARED:
                return getattr(importlib.import_module(module), original)
            if self.reads and path in READING:
                return READING[path]
            if self._is_readable(module):
                return _Source.of(module, self.reads).value(original)
        raise UnknownError(f"{self.module}.{name}")

    def _is_readable(self, module: str) -> bool:
        """Whether it belongs to the same package, or to flowexp; others (torch) take too long."""
        return module.partition(".")[0] in ("flowexp", self.module.partition(".")[0])

    def class_named(self, name: str) -> "_Class | None":
        """A class by its name here, perhaps ``module.Name``; None if it cannot be read.

        Unlike :meth:`value`, the classes of shared modules are read from their source too.
        """
        if isinstance(self.nodes.get(name), ast.ClassDef):
            found: _Class = self.value(name)
            return found
        module, _, last = (origin(self.module, name) or "").rpartition(".")
        readable = self._is_readable(module)
        return _Source.of(module, self.reads).class_named(last) if readable else None

    def constant(self, node: ast.expr) -> Any:  # noqa: ANN401
        """The value of an expression of the module."""
        return self.expression(node, self.names)

    def expression(self, node: ast.expr, names: dict[str, Any]) -> Any:  # noqa: ANN401
        """The value of an expression.

        Raises:
            UnknownError: It cannot be evaluated.
            ValueError: It refused a value.
        """
        with guarded(self.module):
            return eval(compile(ast.Expression(node), self.module, "eval"), names)

    def function(self, node: ast.FunctionDef, **names: object) -> Callable[..., Any]:
        """A function of the module, or a method with further ``names``."""
        scope: dict[str, Any] = {**self.names, **names}
        with guarded(self.module):
            exec(_compiled(node, self.module), scope)
        made: Callable[..., Any] = scope[node.name]
        return made


@contextmanager
def guarded(where: str) -> Iterator[None]:
    """Turn every failure of evaluated code but a refusal into :class:`UnknownError`."""
    try:
        yield
    except (UnknownError, ValueError):
        raise
    except Exception as error:
        raise UnknownError(f"{where}: {error}") from error


class _Class:
    """A class as its source describes it."""

    def __init__(self, source: _Source, node: ast.ClassDef) -> None:
        self.source = source
        self.node = node
        self.members = {name: item for item in node.body for name in _defined_names(item)}
        self.values = {
            name: item
            for name, item in self.members.items()
            if not isinstance(item, ast.AnnAssign) or item.value is not None
        }
        self.kind = type(node.name, (StandIn,), {})

    @functools.cached_property
    def bases(self) -> list[tuple[str, "_Class | None"]]:
        """The bases by their names here; None where one cannot be read."""
        names = [ast.unparse(base).partition("[")[0] for base in self.node.bases]
        return [(name, self.source.class_named(name)) for name in names]

    @functools.cached_property
    def mro(self) -> list["_Class"]:
        """The class and its readable bases, in the order in which attributes are looked up."""
        found = [self]
        for _, base in self.bases:
            found += [] if base is None else base.mro
        return list(dict.fromkeys(reversed(found)))[::-1]

    @functools.cached_property
    def is_open(self) -> bool:
        """Whether it, or a base of it, has a base that is not known here."""
        return any(
            name.rpartition(".")[2] not in _INERT if base is None else base.is_open
            for name, base in self.bases
        )

    def lookup(self, name: str, *, after: "_Class | None" = None) -> "tuple[_Class, ast.stmt]":
        """The class that defines an attribute, and the statement that does.

        Raises:
            UnknownError: No readable class does.
        """
        start = 0 if after is None else self.mro.index(after) + 1
        for cls in self.mro[start:]:
            if name in cls.values:
                return cls, cls.values[name]
        raise UnknownError(f"{self.node.name}.{name}")

    def __call__(self, *positional: object, **named: object) -> "StandIn":
        made: StandIn = self.kind(self)
        _construct(made, None, *positional, **named)
        return made

    def __instancecheck__(self, value: object) -> bool:
        if not isinstance(value, StandIn):
            return False
        cls = _class_of(value)
        if self not in cls.mro and cls.is_open:
            raise UnknownError(f"whether {cls.node.name} is a {self.node.name}")
        return self in cls.mro

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name == "__name__":
            return self.node.name
        owner, node = self.lookup(name)
        return _bound(owner, node, None, self)


class StandIn(Part):
    """An object of a class that was not imported; ``type(x).__name__`` is the class's own."""

    def __init__(self, cls: _Class) -> None:
        vars(self)["__class"] = cls
        vars(self)["__unknown"] = set()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("__") or name in vars(self)["__unknown"]:
            raise UnknownError(name)
        cls = _class_of(self)
        try:
            found = cls.lookup(name)
        except UnknownError:
            with guarded(name):
                return _bound(*cls.lookup("__getattr__"), self, cls)(name)
        return _bound(*found, self, cls)

    def needs(self, parts: Parts) -> Iterator[Unmet]:
        """What the class of the source says; nothing, if it is no :class:`Part`."""
        try:
            owner, node = _class_of(self).lookup("needs")
        except UnknownError:
            return
        needs = _bound(owner, node, self, _class_of(self))(parts)
        while True:
            with guarded(f"{type(self).__name__}.needs"):
                unmet = next(needs, None)
            if unmet is None:
                return
            yield unmet

    def __repr__(self) -> str:
        shown = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"


def _class_of(made: StandIn) -> _Class:
    cls: _Class = vars(made)["__class"]
    return cls


def _super_of(made: StandIn, owner: _Class) -> Any:  # noqa: ANN401
    """What ``super()`` gives within a method of ``owner``."""

    class Super:
        def __getattribute__(self, name: str) -> Any:  # noqa: ANN401
            if name == "__init__":
                return functools.partial(_construct, made, owner)
            if name == "__getattr__":
                return functools.partial(_held_by, made)
            return _bound(*_class_of(made).lookup(name, after=owner), made, _class_of(made))

    return Super()


def _held_by(made: StandIn, name: str) -> Any:  # noqa: ANN401
    """What ``torch.nn.Module.__getattr__`` finds: a parameter or a module that was assigned."""
    held = vars(made)
    if name in held["__unknown"]:
        raise UnknownError(name)
    if name not in held:
        raise AttributeError(name)
    return held[name]


def _bound(owner: _Class, node: ast.stmt, made: StandIn | None, cls: _Class) -> Any:  # noqa: ANN401
    """An attribute that ``owner`` defines, as an object of ``cls`` (or the class) has it."""
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        return owner.source.constant(node.value)
    if not isinstance(node, ast.FunctionDef):
        raise UnknownError(f"{owner.node.name} only declares it")
    how = {ast.unparse(d).rpartition(".")[2] for d in node.decorator_list}
    if "abstractmethod" in how:
        raise UnknownError(f"{owner.node.name}.{node.name} is abstract")
    function = owner.source.function(node, super=lambda: _super_of(made, owner))  # type: ignore[arg-type]
    if how & {"property", "cached_property"}:
        with guarded(node.name):
            return function(made)
    if how - {"staticmethod", "classmethod"}:
        raise UnknownError(f"{owner.node.name}.{node.name} is decorated")
    first = () if "staticmethod" in how else (cls,) if "classmethod" in how else (made,)
    return functools.partial(function, *first)


def _construct(
    made: StandIn, after: _Class | None, /, *positional: object, **named: object
) -> None:
    """Run the constructor of the class, or of the next one ``after`` a class of its order."""
    cls = _class_of(made)
    try:
        owner, node = cls.lookup("__init__", after=after)
    except UnknownError:
        _fill_fields(made, positional, named)
        return
    if isinstance(node, ast.FunctionDef):
        _Constructor(made, owner, node).run(positional, named)


def _fill_fields(made: StandIn, positional: Sequence[object], named: Mapping[str, object]) -> None:
    """The constructor of a dataclass: one argument for each annotated name."""
    cls = _class_of(made)
    fields = dict.fromkeys(
        name
        for owner in reversed(cls.mro)
        for name, item in owner.members.items()
        if is_field(item)
    )
    given = {**dict(zip(fields, positional, strict=False)), **named}
    vars(made).update({name: given[name] for name in fields if name in given})
    try:
        owner, node = cls.lookup("__post_init__")
    except UnknownError:
        return
    if isinstance(node, ast.FunctionDef):
        _Constructor(made, owner, node).run((), {})


class _Constructor:
    """Runs a constructor statement by statement, so that one that is unknown costs only its own."""

    def __init__(self, made: StandIn, owner: _Class, node: ast.FunctionDef) -> None:
        self.made = made
        self.owner = owner
        self.node = node
        self.names: dict[str, Any] = {**owner.source.names, "super": lambda: _super_of(made, owner)}

    def run(self, positional: Sequence[object], named: Mapping[str, object]) -> None:
        """Run it with these arguments; a refusal of a value is its own ValueError."""
        arguments = self._arguments(positional, dict(named))
        self.names |= {**arguments, "locals": lambda: dict(arguments)}
        self._body(self.node.body)

    def _arguments(self, positional: Sequence[object], named: dict[str, object]) -> dict[str, Any]:
        arguments = self.node.args
        by_position = [p.arg for p in (*arguments.posonlyargs, *arguments.args)]
        found = dict(zip(by_position, [self.made, *positional], strict=False))
        for parameter, default in parameters_of(arguments):
            name = parameter.arg
            if name in named:
                found[name] = named.pop(name)
            elif name not in found and default is not None:
                with suppress(UnknownError):
                    found[name] = self.owner.source.constant(default)
        if arguments.kwarg is not None:
            found[arguments.kwarg.arg] = named
        if arguments.vararg is not None:
            found[arguments.vararg.arg] = tuple(positional[len(by_position) - 1 :])
        return found

    def _body(self, statements: Sequence[ast.stmt]) -> bool:
        """Run statements; whether one of them returned, or may have."""
        for number, statement in enumerate(statements):
            if isinstance(statement, ast.Return):
                return True
            try:
                if isinstance(statement, ast.If):
                    branch = statement.body if self._value(statement.test) else statement.orelse
                    if self._body(branch):
                        return True
                elif (call := _super_call(statement)) is not None:
                    self._construct_base(call)
                else:
                    with guarded(self.owner.node.name):
                        exec(_compiled(statement, self.owner.source.module), self.names)
            except UnknownError:
                self._forget(statement)
                if _may_return(statement):
                    for later in statements[number + 1 :]:
                        self._forget(later)
                    return True
        return False

    def _value(self, node: ast.expr) -> Any:  # noqa: ANN401
        return self.owner.source.expression(node, self.names)

    def _construct_base(self, call: ast.Call) -> None:
        """The base's constructor, without the arguments that are unknown."""
        named: dict[str, Any] = {}
        positional: list[Any] = []
        try:
            positional = [self._value(argument) for argument in call.args]
        except UnknownError:
            named |= self._by_name(call.args)
        for keyword in call.keywords:
            with suppress(UnknownError):
                value = self._value(keyword.value)
                named |= {keyword.arg: value} if keyword.arg is not None else value
        _construct(self.made, self.owner, *positional, **named)

    def _by_name(self, positional: list[ast.expr]) -> dict[str, Any]:
        """The known positional arguments of a call to a base class, by their parameter names."""
        base = _class_of(self.made).lookup("__init__", after=self.owner)[1]
        found = {}
        if isinstance(base, ast.FunctionDef):
            names = [p.arg for p in (*base.args.posonlyargs, *base.args.args)][1:]
            for name, argument in zip(names, positional, strict=False):
                with suppress(UnknownError):
                    found[name] = self._value(argument)
        return found

    def _forget(self, statement: ast.stmt) -> None:
        """What a statement changes is unknown, if it could not be run."""
        stored, used = _changed_names(statement)
        for name in stored:
            self.names.pop(name, None)
        for name in used:
            if isinstance(self.names.get(name), list | dict | set):
                del self.names[name]
        for name in self._attributes(self.owner, self.node, statement, set()):
            vars(self.made).pop(name, None)
            vars(self.made)["__unknown"].add(name)

    def _attributes(
        self, owner: _Class, method: ast.FunctionDef, within: ast.stmt, seen: set[ast.stmt]
    ) -> Iterator[str]:
        """The attributes that a part of a method sets, itself and by calls of other methods."""
        seen.add(within)
        own = method.args.args[0].arg if method.args.args else ""
        for name, of_base, is_set in _mentioned(within, own):
            if is_set:
                yield name
                continue
            with suppress(UnknownError):
                after = owner if of_base else None
                found, called = _class_of(self.made).lookup(name, after=after)
                if isinstance(called, ast.FunctionDef) and called not in seen:
                    yield from self._attributes(found, called, called, seen)


@functools.cache
def _may_return(statement: ast.stmt) -> bool:
    return any(isinstance(node, ast.Return) for node in ast.walk(statement))


@functools.cache
def _changed_names(statement: ast.stmt) -> tuple[frozenset[str], frozenset[str]]:
    """The names that a statement binds, and those whose values its calls may change."""
    nodes = list(ast.walk(statement))
    calls = [node for node in nodes if isinstance(node, ast.Expr)]
    return (
        frozenset(n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)),
        frozenset(n.id for call in calls for n in ast.walk(call) if isinstance(n, ast.Name)),
    )


@functools.cache
def _mentioned(within: ast.stmt, own: str) -> tuple[tuple[str, bool, bool], ...]:
    """The attributes of ``own`` and of ``super()``: name, whether of super, whether it is set."""
    found = []
    for node in ast.walk(within):
        if isinstance(node, ast.Attribute):
            of_base = ast.unparse(node.value) == "super()"
            if of_base or (isinstance(node.value, ast.Name) and node.value.id == own):
                found.append((node.attr, of_base, isinstance(node.ctx, ast.Store)))
    return tuple(found)


def _with_typed_imports(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, including imports under ``TYPE_CHECKING``."""
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from node.body
        else:
            yield node


@functools.cache
def _super_call(statement: ast.stmt) -> ast.Call | None:
    """The call, if the statement is ``super().__init__(...)``."""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
        return None
    function = ast.unparse(statement.value.func)
    return statement.value if function == "super().__init__" else None


def _defined_names(node: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module or class binds."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


@functools.cache
def _compiled(node: ast.stmt, module: str) -> Any:  # noqa: ANN401 - a code object
    """A statement as code; decorators and annotations are not evaluated."""
    if isinstance(node, ast.FunctionDef):
        node = copy.copy(node)
        node.decorator_list = []
    flags = __future__.annotations.compiler_flag
    return compile(ast.Module([node], []), module, "exec", flags=flags, dont_inherit=True)
