"""Fashion-MNIST: the packaged part, and the four idx files wherever they are found."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from flowexp.data import fashion
from flowexp.data.fashion import Fashion10k, FashionMNIST, parse_idx, unpack
from flowexp.errors import UsageError


def test_packaged_split_is_balanced_and_whole():
    data = Fashion10k()
    data.locate()
    train, heldout = data.train(), data.heldout()
    assert train.images.shape == (8000, 1, 28, 28)
    assert heldout.images.shape == (2000, 1, 28, 28)
    assert np.bincount(train.labels).tolist() == [800] * 10
    assert np.bincount(heldout.labels).tolist() == [200] * 10
    rows = np.concatenate([train.images, heldout.images]).reshape(10_000, -1)
    original = parse_idx(fashion._packaged_content("t10k-images-idx3-ubyte"), axes=3)
    assert sorted(map(bytes, rows)) == sorted(map(bytes, original.reshape(10_000, -1)))


def test_packaged_fingerprint_is_pinned():
    # A change means that the split changed, and old runs cannot be compared any more.
    assert (
        Fashion10k().train().fingerprint
        == "14dde0490516b1dd49f43a665b9907d064fa98bdc2d3fd345cf35011a8e57e23"
    )


def test_known_mean_of_the_official_test_set():
    train, heldout = Fashion10k().train(), Fashion10k().heldout()
    mean = (0.8 * train.images.mean() + 0.2 * heldout.images.mean()) / 255
    assert mean == pytest.approx(0.2868, abs=1e-4)


def test_padding_adds_two_zeros_on_every_side():
    plain, padded = Fashion10k().heldout(), Fashion10k(resolution=32).heldout()
    assert padded.images.shape == (2000, 1, 32, 32)
    assert np.array_equal(padded.images[..., 2:30, 2:30], plain.images)
    assert padded.images.sum(dtype=np.int64) == plain.images.sum(dtype=np.int64)
    assert padded.fingerprint != plain.fingerprint


def test_damaged_package_says_so(monkeypatch):
    monkeypatch.setitem(fashion.CONTENT_SHA256, "t10k-labels-idx1-ubyte", "0" * 64)
    with pytest.raises(UsageError, match=r"t10k-labels-idx1-ubyte\.gz .* Install flowexp again"):
        Fashion10k().train()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"resolution": 64}, "resolution"),
        ({"channels": 3}, "channels"),
        ({"num_classes": 0}, "num"),
    ],
)
@pytest.mark.parametrize("kind", [Fashion10k, FashionMNIST])
def test_other_declarations_are_refused(kind, changes, key):
    with pytest.raises(UsageError, match=rf"dataset\.{key}"):
        kind(**changes)


def idx_bytes(array):
    head = struct.pack(f">{array.ndim + 1}I", (8 << 8) | array.ndim, *array.shape)
    return head + array.tobytes()


@pytest.fixture
def forged(tmp_path, monkeypatch):
    """Small files in the official layout whose digests are declared to be the official ones."""
    monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FLOWEXP_DATA", raising=False)
    monkeypatch.setattr(fashion, "DEBIAN_FOLDER", str(tmp_path / "no-debian"))
    rng = np.random.default_rng(0)
    folder = tmp_path / "files"
    folder.mkdir()
    for prefix, count in (("train", 30), ("t10k", 20)):
        pictures = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for stem, array in (
            (f"{prefix}-images-idx3-ubyte", pictures),
            (f"{prefix}-labels-idx1-ubyte", labels),
        ):
            content = idx_bytes(array)
            (folder / f"{stem}.gz").write_bytes(gzip.compress(content))
            monkeypatch.setitem(fashion.CONTENT_SHA256, stem, hashlib.sha256(content).hexdigest())
    return folder


def unpacked_into(folder: Path, files: Path):
    folder.mkdir(parents=True)
    for file in files.iterdir():
        (folder / file.stem).write_bytes(gzip.decompress(file.read_bytes()))


def test_root_with_gzipped_files(forged):
    data = FashionMNIST(root=str(forged))
    data.locate()
    assert len(data.train()) == 30
    assert len(data.heldout()) == 20
    assert data.train().name == "fashion_mnist/train"
    assert torch.from_numpy(data.train().images).shape == (30, 1, 28, 28)


def test_all_layouts_give_the_same_content(forged, tmp_path, monkeypatch):
    expected = FashionMNIST(root=str(forged)).train().fingerprint
    unpacked_into(tmp_path / "vision/FashionMNIST/raw", forged)
    assert FashionMNIST(root=str(tmp_path / "vision")).train().fingerprint == expected
    monkeypatch.setenv("FLOWEXP_DATA", str(tmp_path / "vision"))
    assert FashionMNIST().train().fingerprint == expected
    monkeypatch.delenv("FLOWEXP_DATA")
    monkeypatch.setattr(fashion, "DEBIAN_FOLDER", str(forged))
    assert FashionMNIST().train().fingerprint == expected


def test_missing_files_name_the_folders_and_the_ways_to_get_them(forged, tmp_path):
    empty = tmp_path / "empty"
    with pytest.raises(UsageError) as caught:
        FashionMNIST(root=str(empty)).locate()
    assert caught.value.key == "dataset.root"
    for words in (
        str(empty),
        "train-images-idx3-ubyte.gz",
        "dataset-fashion-mnist",
        "download=true",
    ):
        assert words in str(caught.value)
    with pytest.raises(UsageError, match="no-debian"):
        FashionMNIST().train()


def test_truncated_and_foreign_files_are_refused(forged):
    file = forged / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-200])
    with pytest.raises(UsageError, match=r"train-images.*gzip stream is damaged"):
        FashionMNIST(root=str(forged)).train()
    file.write_bytes(gzip.compress(idx_bytes(np.zeros((30, 28, 28), dtype=np.uint8))))
    with pytest.raises(UsageError, match=r"is not Fashion-MNIST's train-images-idx3-ubyte"):
        FashionMNIST(root=str(forged)).train()


def test_download_only_when_asked_and_verified(forged, tmp_path, monkeypatch):
    monkeypatch.setattr(fashion, "PUBLISHER", forged.as_uri())
    with pytest.raises(UsageError, match="download=true"):
        FashionMNIST().train()
    data = FashionMNIST(download=True)
    data.locate()
    assert len(data.train()) == 30
    fetched = tmp_path / "cache/downloads/fashion-mnist/train-images-idx3-ubyte.gz"
    assert fetched.read_bytes() == (forged / fetched.name).read_bytes()
    assert FashionMNIST().train().fingerprint == data.train().fingerprint
    assert not list(fetched.parent.glob(".*"))


def test_a_bad_download_leaves_nothing_behind(forged, tmp_path, monkeypatch):
    monkeypatch.setattr(fashion, "PUBLISHER", forged.as_uri())
    (forged / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"a web page"))
    with pytest.raises(UsageError, match="is not Fashion-MNIST"):
        FashionMNIST(download=True).train()
    assert not list((tmp_path / "cache/downloads/fashion-mnist").iterdir())
    monkeypatch.setattr(fashion, "PUBLISHER", (tmp_path / "nowhere").as_uri())
    with pytest.raises(UsageError, match=r"dataset\.download: .* could not be downloaded"):
        FashionMNIST(download=True).train()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "magic number is 0"),
        (struct.pack(">II", 2049, 3) + b"abc", "magic number is 2049; expected 2051"),
        (struct.pack(">IIII", 2051, 2, 2, 2) + b"abcdefg", "23 bytes.*expected 24"),
        (struct.pack(">IIII", 2051, 2, 2, 2) + b"abcdefghi", "25 bytes.*expected 24"),
    ],
)
def test_idx_headers_are_checked(content, message):
    with pytest.raises(ValueError, match=message):
        parse_idx(content, axes=3)


def test_idx_values_and_unpacking():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert np.array_equal(parse_idx(unpack(gzip.compress(idx_bytes(array))), axes=3), array)
    assert unpack(b"plain") == b"plain"
    with pytest.raises(ValueError, match="gzip"):
        unpack(b"\x1f\x8bnonsense")
