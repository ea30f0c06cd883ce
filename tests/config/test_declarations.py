"""What parts declare stands on their protocols, where a misspelt name is not."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
import yaml

import flowexp.config
from flowexp import requirements
from flowexp.config.trust import KINDS
from flowexp.couplings import Independent
from flowexp.metrics.base import Extractor, Metric
from flowexp.parameterizations import Parameterization
from flowexp.requirements import Part

ROOT = Path(__file__).parents[2]
# A metric or extractor may follow its protocol without deriving from it.
STRUCTURAL = (Metric, Extractor)
FACTS = {
    name: declared
    for name, declared in vars(requirements).items()
    if inspect.isclass(declared) and declared.__module__ == requirements.__name__
}


def targets(node):
    if isinstance(node, dict):
        yield from [node["_target_"]] if isinstance(node.get("_target_"), str) else []
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from targets(value)


def parts() -> set[type]:
    """The classes that yaml files name."""
    found = set()
    for file in (ROOT / "conf").rglob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        for target in targets(yaml.safe_load(text)) if "_target_: flowexp." in text else ():
            module, _, name = target.rpartition(".")
            if target.startswith("flowexp."):
                found.add(getattr(importlib.import_module(module), name))
    return {part for part in found if inspect.isclass(part)}


def annotated(cls: type) -> set[str]:
    """Names that the class or a base of it annotates."""
    return {name for base in cls.__mro__ for name in inspect.get_annotations(base)}


def overridable(part: type) -> set[str]:
    """Public names of the protocols that a class derives from, or follows."""
    protocols = [base for base in part.__mro__[1:] if base is not object]
    return {name for base in (*protocols, *STRUCTURAL) for name in vars(base)}


def undeclared(part: type) -> set[str]:
    """What looks like a declaration but is none of the protocol's.

    These are flags that no class annotates, and methods that take nothing but ``parts`` or
    ``channels`` and are not the protocol's: a misspelt ``needs`` or ``output_channels``.
    """
    known = annotated(part) | {name for protocol in STRUCTURAL for name in vars(protocol)}
    bases = [base for base in part.__mro__ if base.__module__.startswith(("flowexp.", "tests."))]
    public = [(n, v) for base in bases for n, v in vars(base).items() if not n.startswith("_")]
    flags = {n for n, v in public if isinstance(v, bool)}
    methods = {n for n, v in public if inspect.isfunction(v) and declares(v)}
    return (flags - known) | (methods - overridable(part))


def declares(method) -> bool:
    return list(inspect.signature(method).parameters) in (["self", "parts"], ["self", "channels"])


def test_every_declaration_of_a_part_is_one_of_its_protocol():
    found = {part.__qualname__: undeclared(part) for part in parts()}
    assert len(found) > 100
    assert {name: names for name, names in found.items() if names} == {}


def test_a_misspelt_declaration_is_found():
    class Misspelt(Independent):
        need_gaussian = True

        def neds(self, parts):
            yield from ()

    class Doubled(Parameterization):
        def outputs_channels(self, channels):
            return (2 * channels,)

    assert undeclared(Misspelt) == {"need_gaussian", "neds"}
    assert undeclared(Doubled) == {"outputs_channels"}


def is_parts(annotation: ast.expr | None) -> bool:
    return annotation is not None and ast.unparse(annotation) == "Parts"


def needs_methods() -> list[tuple[str, str, ast.FunctionDef]]:
    """Every method below flowexp that is about the other parts: its name, module and source."""
    found = []
    for file in sorted((ROOT / "flowexp").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        tree = ast.parse(text if "flowexp.requirements" in text else "")
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for cls in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            methods = [node for node in cls.body if isinstance(node, ast.FunctionDef)]
            found += [
                (f"{file.stem}.{cls.name}.{method.name}", module, method)
                for method in methods
                if any(a.arg == "parts" and is_parts(a.annotation) for a in method.args.args)
            ]
    return found


@pytest.mark.parametrize("method", [pytest.param(m, id=name) for name, _, m in needs_methods()])
def test_needs_read_only_what_protocols_declare(method):
    """``parts.path.D`` must be declared by ``requirements.Parts.path``, and so on downwards."""
    for node in ast.walk(method):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("parts."):
            declared = requirements.Parts
            for name in ast.unparse(node).split("(")[0].split(".")[1:]:
                names = annotated(declared) | set(dir(declared))
                assert name in names, f"{ast.unparse(node)}: {declared.__name__} has no {name}"
                declared = FACTS.get(type_name(declared, name), object)
                if declared is object:
                    break


def type_name(declared: type, name: str) -> str:
    found = inspect.get_annotations(declared).get(name)
    fact = getattr(declared, name, None)
    if found is None and isinstance(fact, property):
        found = fact.fget.__annotations__["return"]
    return getattr(found, "__name__", "")


def test_the_check_names_no_part():
    """It knows kinds of parts, a few of which are one class."""
    kinds = {kind.rpartition(".")[2] for kinds in KINDS.values() for kind in kinds}
    names = {part.__name__ for part in parts()} - kinds
    for file in Path(flowexp.config.__file__).parent.glob("*.py"):
        if file.name != "renamed.py":
            tree = ast.parse(file.read_text(encoding="utf-8"))
            texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
            found = {text.rpartition(".")[2] for text in texts if isinstance(text, str)}
            assert names & found == set(), file.name


def test_every_group_of_parts_can_state_needs():
    stating = [part for part in parts() if issubclass(part, Part)]
    assert len(stating) > 90
