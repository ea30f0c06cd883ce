"""Files are complete or absent."""

import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flowexp.errors import NotWrittenError
from flowexp.files import (
    file_sha256,
    write_atomically,
    write_json,
    write_npz,
    write_text,
    write_torch,
    write_with_link,
)


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    path = write_text(tmp_path / "deep" / "file.txt", "old")

    def fail(beside: Path) -> None:
        beside.write_text("half")
        assert path.read_text() == "old"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_each_kind_reads_back(tmp_path: Path) -> None:
    assert write_text(tmp_path / "a.txt", "\u00e9\n").read_text(encoding="utf-8") == "\u00e9\n"
    assert write_json(tmp_path / "a.json", {"a": 1}).read_text() == '{\n  "a": 1\n}\n'
    with np.load(write_npz(tmp_path / "a.npz", {"x": np.arange(3)})) as arrays:
        assert arrays["x"].tolist() == [0, 1, 2]
    stored = torch.load(write_torch(tmp_path / "a.pt", {"x": torch.ones(2)}), weights_only=True)
    assert stored["x"].tolist() == [1.0, 1.0]
    assert len(list(tmp_path.iterdir())) == 4


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_link_is_replaced_without_touching_what_it_pointed_to(tmp_path: Path) -> None:
    first, second = write_text(tmp_path / "1", "first"), write_text(tmp_path / "2", "second")
    write_with_link(tmp_path / "last", target=first)
    write_with_link(tmp_path / "last", target=second)
    assert (tmp_path / "last").read_text() == "second"
    assert first.read_text() == "first"


def test_a_copy_where_links_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    target = write_text(tmp_path / "1", "content")
    assert write_with_link(tmp_path / "last", target=target).read_text() == "content"


def test_the_digest_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    # FIPS 180-4, appendix B.1
    assert file_sha256(tmp_path / "x").startswith("ba7816bf8f01cfea")


def write_safetensors(path, content):
    return write_atomically(path, lambda beside: save_file(content, beside))


@pytest.mark.parametrize("write", [write_torch, write_npz, write_safetensors])
@pytest.mark.parametrize("count", [300, 9999])
def test_a_full_disk_is_named_and_leaves_the_old_file(write, count, tmp_path):
    content = {"a": torch.rand(count)}
    if write is write_npz:
        content = {"a": content["a"].numpy()}
    path = write_text(tmp_path / ("file.npz" if write is write_npz else "file.bin"), "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(NotWrittenError, match=r"file\.\w+ could not be written .*MB free\)"):
            write(path, content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
