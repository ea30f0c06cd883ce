"""The manifest of a run knows the source files of parts that are not flowexp's."""

import hashlib
import sys

import pytest

from flowexp.runs.outside_parts import KEY, changed_since, outside_parts, outside_targets

CONFIG = {
    "sampler": {
        "_target_": "derived_part.Mine",
        "time_grid": {"_target_": "flowexp.samplers.Time"},
    },
    "optimizer": {"_target_": "torch.optim.Adam"},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "base_part.py").write_text("class Base: ...\n")
    (tmp_path / "derived_part.py").write_text("from base_part import Base\nclass Mine(Base): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import derived_part  # noqa: F401

    yield tmp_path
    for name in ("base_part", "derived_part"):
        del sys.modules[name]


def test_the_class_and_its_bases_by_name_and_sha256(folder):
    assert outside_targets(CONFIG) == {"derived_part.Mine"}
    found = outside_parts(CONFIG)
    digest = hashlib.sha256((folder / "base_part.py").read_bytes()).hexdigest()
    assert found["base_part"] == {"file": "base_part.py", "sha256": digest}
    assert set(found) == {"base_part", "derived_part"}
    assert str(folder) not in str(found)


def test_changed_source_is_named(folder):
    manifest = {KEY: outside_parts(CONFIG)}
    assert list(changed_since(manifest, CONFIG)) == []
    assert list(changed_since({}, CONFIG)) == []  # a run of an earlier version
    (folder / "base_part.py").write_text("class Base:\n    x = 1\n")
    (said,) = changed_since(manifest, CONFIG)
    assert said.startswith("base_part.py (module base_part) has changed since the run began")
