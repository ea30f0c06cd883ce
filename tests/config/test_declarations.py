"""What parts declare of their needs stands on their protocols, where a misspelt name is not."""

import ast
import importlib
import inspect
from pathlib import Path

import yaml

import flowexp.config.rules
from flowexp.couplings import Independent
from flowexp.data import Dataset
from flowexp.metrics.base import Extractor, Metric
from flowexp.networks import Network
from flowexp.paths import Schedule

CONF = Path(__file__).parents[2] / "conf"
# Metrics and extractors follow their protocols without deriving from them.
STRUCTURAL = (Metric, Extractor)


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
    for file in CONF.rglob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        for target in targets(yaml.safe_load(text)) if "_target_: flowexp." in text else ():
            module, _, name = target.rpartition(".")
            if target.startswith("flowexp."):
                found.add(getattr(importlib.import_module(module), name))
    return {part for part in found if inspect.isclass(part)}


def annotated(cls: type) -> set[str]:
    """Names that the class or a base of it annotates."""
    return {name for base in cls.__mro__ for name in inspect.get_annotations(base)}


def undeclared(part: type) -> set[str]:
    """The public flags of a class that no protocol of it annotates."""
    known = annotated(part) | {name for protocol in STRUCTURAL for name in vars(protocol)}
    bases = [base for base in part.__mro__ if base.__module__.startswith(("flowexp.", "tests."))]
    flags = {n for base in bases for n, v in vars(base).items() if isinstance(v, bool)}
    return {name for name in flags - known if not name.startswith("_")}


def test_every_flag_of_a_part_is_one_of_its_protocol():
    found = {part.__qualname__: undeclared(part) for part in parts()}
    assert len(found) > 100
    assert {name: flags for name, flags in found.items() if flags} == {}


def test_a_misspelt_flag_is_found():
    class Misspelt(Independent):
        need_gaussian = True

    assert undeclared(Misspelt) == {"need_gaussian"}


def test_the_check_reads_only_what_protocols_declare():
    tree = ast.parse(inspect.getsource(flowexp.config.rules))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    readers = {"_declares", "class_attribute"}
    read = [call.args[1] for call in calls if call.func.id in readers]
    names = {name.value for name in read if isinstance(name, ast.Constant)}
    assert len(names) > 10
    bases = {base for part in parts() for base in part.__mro__ if inspect.isabstract(base)}
    bases |= {Schedule, Network, Dataset}
    known = set().union(*map(annotated, bases), *map(vars, STRUCTURAL))
    assert names - known == set()


def test_the_check_names_no_class():
    tree = ast.parse(inspect.getsource(flowexp.config.rules))
    texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    texts = {text.rpartition(".")[2] for text in texts if isinstance(text, str)}
    assert {part.__name__ for part in parts()} & texts == set()
