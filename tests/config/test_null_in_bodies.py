"""A file does not set to null what its defaults list lets a user choose.

With ``_self_`` last, ``premetric: null`` below ``- premetric: null`` would silently undo
``objective/premetric=l2`` of the command line.
"""

import re
from pathlib import Path, PurePosixPath

import pytest
import yaml

from flowexp.config import conf_dir
from flowexp.tree import leaves

CONF = conf_dir()
# Tables and claims are read, not composed, and local/ is the user's own.
FILES = [
    file
    for file in sorted(CONF.rglob("*.yaml"))
    if file.relative_to(CONF).parts[0] not in ("table", "claim", "local")
    and "\ndefaults:" in file.read_text(encoding="utf-8")
]
PACKAGE = re.compile(r"^# @package +(\S+)$", re.MULTILINE)


def undone(file, *, conf):
    """Keys, from the root of the config, that a file's body sets to null after a group of them."""
    body = content_of(file)
    entries = body.pop("defaults", [])
    last = entries.index("_self_") if "_self_" in entries else len(entries)
    groups = [group for entry in entries[:last] for group in named(entry, file, conf=conf)]
    package = package_of(file, conf=conf)
    nulls = {dotted(package, key) for key, value in leaves(body) if key and value is None}
    return sorted(nulls & {part for group in groups for part in above(group)})


def named(entry, file, *, conf):
    """Where the groups that an entry names stand; those of a base, which may be null there."""
    if isinstance(entry, str):
        base = (conf / entry[1:] if entry.startswith("/") else file.parent / entry).with_suffix(
            ".yaml"
        )
        if entry == "_self_" or not base.is_file():
            return []
        inner = content_of(base).get("defaults", [])
        return [group for one in inner for group in named(one, base, conf=conf)]
    (name,) = entry
    group, _, package = str(name).removeprefix("optional ").removeprefix("override ").partition("@")
    own = package_of(file, conf=conf)
    if package.startswith("_global_"):
        return [package.removeprefix("_global_").lstrip(".")]
    if package == "_here_":
        return [own]
    if package:
        return [dotted(own, package)]
    if group.startswith("/"):
        return [group[1:].replace("/", ".")]
    folder = file.parent.relative_to(conf)
    return [(PurePosixPath(folder.as_posix()) / group).as_posix().replace("/", ".")]


def content_of(file):
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is built
    return yaml.load(file.read_text(encoding="utf-8"), loader) or {}


def package_of(file, *, conf):
    """Where the keys of a file stand in the config."""
    found = PACKAGE.search(file.read_text(encoding="utf-8"))
    package = ".".join(file.parent.relative_to(conf).parts) if found is None else found[1]
    return package.removeprefix("_global_").lstrip(".")


def dotted(*names):
    return ".".join(name for name in names if name)


def above(key):
    """A key and those that contain it."""
    parts = key.split(".")
    return {".".join(parts[:depth]) for depth in range(1, len(parts) + 1)}


def test_no_body_undoes_a_choice():
    found = {str(file.relative_to(CONF)): undone(file, conf=CONF) for file in FILES}
    assert len(found) > 100
    assert {name: keys for name, keys in found.items() if keys} == {}


@pytest.mark.parametrize(
    ("entry", "body", "key"),
    [
        ("premetric: null", "premetric: null", "objective.premetric"),
        ("override premetric: l2", "premetric: null", "objective.premetric"),
        ("optional driver/mix: none", "driver: {mix: null}", "objective.driver.mix"),
        ("driver/mix: none", "driver: null", "objective.driver"),
        ("/timestep@law.of: uniform", "law: {of: null}", "objective.law.of"),
        ("base", "weighting: null", "objective.weighting"),
        ("/objective/base", "weighting: null", "objective.weighting"),
    ],
)
def test_a_null_after_the_defaults_is_found(tmp_path, entry, body, key):
    folder = tmp_path / "objective"
    folder.mkdir()
    (folder / "base.yaml").write_text("defaults:\n  - weighting: uniform\n  - _self_\n")
    file = folder / "mine.yaml"
    file.write_text(f"defaults:\n  - {entry}\n  - _self_\n\n{body}\n")
    assert undone(file, conf=tmp_path) == [key]
    file.write_text(f"defaults:\n  - _self_\n  - {entry}\n\n{body}\n")
    assert undone(file, conf=tmp_path) == []
    file.write_text(f"# @package _global_\ndefaults:\n  - {entry}\n  - _self_\n\n{body}\n")
    assert key not in undone(file, conf=tmp_path)


def test_recipes_that_stand_at_the_root_are_read_too(tmp_path):
    file: Path = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    header, entry = "# a recipe\n# @package _global_\n", "  - override /objective/premetric: l2\n"
    body = "objective: {premetric: null, weighting: null}\n"
    file.write_text(f"{header}defaults:\n{entry}  - _self_\n\n{body}")
    assert undone(file, conf=tmp_path) == ["objective.premetric"]
