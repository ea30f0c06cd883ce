"""Everything public is documented, by its own docstring or by that of the method it overrides."""

import importlib
import inspect
import pkgutil

import pytest

import flowexp

MODULES = [
    found.name
    for found in pkgutil.walk_packages(flowexp.__path__, "flowexp.")
    if not found.name.endswith("__main__")
]


def _members(owner: object, module: str):
    """Public classes and functions defined in the module, and public methods of its classes."""
    for name, value in vars(owner).items():
        inner = inspect.unwrap(getattr(value, "__func__", value))
        inner = inner.fget if isinstance(inner, property) else getattr(inner, "func", inner)
        if name.startswith("_") or getattr(inner, "__module__", None) != module:
            continue
        if inspect.isclass(inner):
            yield f"{module}.{inner.__qualname__}", inner
            yield from _members(inner, module)
        elif inspect.isfunction(inner):
            # Through its owner, so that getdoc finds what an override inherits.
            yield f"{module}.{inner.__qualname__}", getattr(owner, name, value)


@pytest.mark.parametrize("module", MODULES)
def test_public_names_have_docstrings(module):
    imported = importlib.import_module(module)
    assert inspect.getdoc(imported), f"{module} has no docstring"
    missing = [name for name, value in _members(imported, module) if not inspect.getdoc(value)]
    assert not missing


class Base:
    def documented(self):
        """What it does."""

    def bare(self): ...


class Derived(Base):
    def documented(self): ...


def test_an_override_without_docstring_inherits_one_and_others_do_not():
    found = {name.rpartition(".")[2]: inspect.getdoc(f) for name, f in _members(Base, __name__)}
    assert found == {"documented": "What it does.", "bare": None}
    assert [inspect.getdoc(f) for _, f in _members(Derived, __name__)] == ["What it does."]
