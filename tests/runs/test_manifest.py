"""The manifest: complete, plain, and silent about who and where."""

import getpass
import json
import platform
from pathlib import Path

import torch

from flowexp.runs import describe_run, parent


def test_the_manifest_is_plain_and_complete() -> None:
    manifest = describe_run(seed=3, dataset_fingerprint="abc", command=["flowexp", "train"])
    assert json.loads(json.dumps(manifest)) == manifest
    assert manifest["seed"] == 3
    assert manifest["command"] == ["flowexp", "train"]
    assert manifest["dataset_fingerprint"] == "abc"
    assert manifest["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert manifest["python"] == platform.python_version()
    assert set(manifest["code"]) == {"commit", "dirty"}


def test_the_manifest_names_no_host() -> None:
    text = json.dumps(describe_run(seed=0, command=[]))
    assert platform.node() not in text
    assert f'"{getpass.getuser()}"' not in text


def test_a_parent_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "teacher").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    described = parent(tmp_path / "teacher", role="teacher")
    assert described == {"role": "teacher", "path": str(tmp_path / "teacher"), "sha256": known}
