"""CIFAR-10's archive, forged in its real layout: Python 2 pickles in a tar.gz."""

import hashlib
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest

from flowexp.data import cifar10
from flowexp.data.cifar10 import CIFAR10, load_plain
from flowexp.errors import UsageError

COUNT = 20


class Python2Pickler(pickle._Pickler):
    """Writes strings and numpy's names as Python 2 with an old numpy did (protocol 2)."""

    dispatch = pickle._Pickler.dispatch.copy()

    def __init__(self, stream):
        super().__init__(stream, protocol=2)

    def save_bytes(self, value):
        if len(value) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(value)]) + value)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    def save_text(self, value):
        self.save_bytes(value.encode("latin1"))

    def save_name(self, value, name=None):
        if getattr(value, "__name__", "") == "_reconstruct":
            self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
            self.memoize(value)
        else:
            super().save_global(value, name)

    dispatch[bytes] = save_bytes
    dispatch[str] = save_text
    save_global = save_name


def python2_pickle(value):
    stream = io.BytesIO()
    Python2Pickler(stream).dump(value)
    return stream.getvalue()


def member(pictures, labels, name):
    return python2_pickle(
        {
            "batch_label": name,
            "labels": [int(label) for label in labels],
            "data": pictures.reshape(len(pictures), 3072),
            "filenames": [f"thing_{i}.png" for i in range(len(labels))],
        }
    )


def write_archive(file, members):
    with tarfile.open(file, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


class Forged:
    """An archive, and the digests that make it the publisher's."""

    def __init__(self, folder, patch):
        self.folder = folder
        self.patch = patch
        rng = np.random.default_rng(0)
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
        self.pictures = {n: rng.integers(0, 256, (COUNT, 3, 32, 32), dtype=np.uint8) for n in names}
        self.labels = {n: rng.integers(0, 10, COUNT) for n in names}
        self.members = {n: member(self.pictures[n], self.labels[n], n) for n in names}
        self.members["batches.meta"] = python2_pickle({"label_names": ["airplane"]})
        self.file = folder / "cifar-10-python.tar.gz"
        self.write()

    def write(self):
        write_archive(self.file, self.members)
        self.bless()

    def bless(self):
        digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        self.patch.setattr(cifar10, "ARCHIVE_SHA256", digest)
        md5 = {n: hashlib.md5(c).hexdigest() for n, c in self.members.items()}
        self.patch.setattr(cifar10, "MEMBER_MD5", md5)


@pytest.fixture
def forged(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FLOWEXP_DATA", raising=False)
    monkeypatch.setattr(cifar10, "PER_MEMBER", COUNT)
    folder = tmp_path / "data"
    folder.mkdir()
    return Forged(folder, monkeypatch)


def test_pictures_and_labels_in_the_order_of_the_batches(forged):
    data = CIFAR10(root=str(forged.folder))
    data.locate()
    train, heldout = data.train(), data.heldout()
    names = [f"data_batch_{i}" for i in range(1, 6)]
    assert np.array_equal(train.images, np.concatenate([forged.pictures[n] for n in names]))
    assert np.array_equal(train.labels, np.concatenate([forged.labels[n] for n in names]))
    assert np.array_equal(heldout.images, forged.pictures["test_batch"])
    assert train.labels.dtype == np.int64
    assert train.name == "cifar10/train"


def test_fingerprint_is_that_of_the_content(forged):
    from flowexp.data.base import fingerprint

    train = CIFAR10(root=str(forged.folder)).train()
    assert train.fingerprint == fingerprint(train.images, train.labels)


def test_archive_folder_and_file_are_found_in_all_places(forged, tmp_path, monkeypatch):
    expected = CIFAR10(root=str(forged.folder)).train().fingerprint
    assert CIFAR10(root=str(forged.file)).train().fingerprint == expected
    monkeypatch.setenv("FLOWEXP_DATA", str(forged.folder))
    assert CIFAR10().train().fingerprint == expected
    extracted = tmp_path / "vision/cifar-10-batches-py"
    extracted.mkdir(parents=True)
    for name, content in forged.members.items():
        (extracted / name).write_bytes(content)
    for number, root in enumerate((extracted.parent, extracted)):
        monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path / f"cache{number}"))
        assert CIFAR10(root=str(root)).train().fingerprint == expected


def test_second_start_reads_only_the_cache(forged, monkeypatch):
    first = CIFAR10(root=str(forged.folder)).train()

    def unexpected(*_):
        raise AssertionError("the archive was read again")

    monkeypatch.setattr(cifar10, "_read_archive", unexpected)
    second = CIFAR10(root=str(forged.folder), in_memory=False).train()
    assert isinstance(second.images, np.memmap)
    assert second.fingerprint == first.fingerprint
    assert np.array_equal(second.images, first.images)


def test_other_archives_and_members_are_refused(forged, monkeypatch):
    forged.file.write_bytes(forged.file.read_bytes() + b"\0")
    with pytest.raises(UsageError, match=r"is not the publisher's cifar-10-python\.tar\.gz"):
        CIFAR10(root=str(forged.folder)).train()
    forged.bless()
    monkeypatch.setitem(cifar10.MEMBER_MD5, "data_batch_3", "0" * 32)
    with pytest.raises(UsageError, match=r"data_batch_3 is not the publisher's"):
        CIFAR10(root=str(forged.folder)).train()


def test_truncated_and_incomplete_archives_are_refused(forged):
    whole = forged.file.read_bytes()
    forged.file.write_bytes(whole[: len(whole) // 2])
    forged.bless()
    with pytest.raises(UsageError, match=r"tar\.gz is damaged"):
        CIFAR10(root=str(forged.folder)).train()
    del forged.members["data_batch_4"]
    forged.write()
    with pytest.raises(UsageError, match="has no member data_batch_4"):
        CIFAR10(root=str(forged.folder)).train()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"labels": [0] * COUNT}, "'data'"),
        ({"data": np.zeros((COUNT, 9), dtype=np.uint8), "labels": [0] * COUNT}, r"\(20, 9\)"),
        ({"data": np.zeros((COUNT, 3072)), "labels": [0] * COUNT}, "float64"),
        ({"data": np.zeros((COUNT, 3072), dtype=np.uint8), "labels": [0]}, "20 labels"),
        ({"data": np.zeros((COUNT, 3072), dtype=np.uint8), "labels": [10] * COUNT}, r"0\.\.9"),
        ([1, 2], "cannot be read"),
    ],
)
def test_members_with_other_content_are_refused(forged, record, message):
    forged.members["data_batch_2"] = python2_pickle(record)
    forged.write()
    with pytest.raises(UsageError, match=rf"data_batch_2.*{message}"):
        CIFAR10(root=str(forged.folder)).train()


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (exec, (f"open({str(self.marker)!r}, 'w').close()",))


def test_a_malicious_member_is_refused_by_name_and_does_not_run(forged, tmp_path):
    marker = tmp_path / "executed"
    forged.members["data_batch_1"] = pickle.dumps({"data": Malicious(marker)}, protocol=2)
    forged.write()
    with pytest.raises(UsageError, match=r"data_batch_1.*__builtin__\.exec, which is not allowed"):
        CIFAR10(root=str(forged.folder)).train()
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0bndarray.dot\x93.",
        b"\x80\x02}q\x00(U\x01",
        b"\x80\x02.",
        b"",
        b"garbage",
    ],
)
def test_pickles_with_other_names_or_damage_are_refused(content):
    with pytest.raises(ValueError, match=r"not allowed|damaged"):
        load_plain(content)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_values_of_every_protocol_are_read(protocol):
    value = {"a": [1, 2.5, None, True], "b": "text", "c": np.arange(6).reshape(2, 3)}
    if protocol == 2:
        loaded = load_plain(python2_pickle(value))
    else:
        value["d"] = b"bytes"
        loaded = load_plain(pickle.dumps(value, protocol=protocol))
        assert loaded["d"] == b"bytes"
    assert loaded["a"] == value["a"]
    assert loaded["b"] == "text"
    assert np.array_equal(loaded["c"], value["c"])


def test_missing_archive_names_folders_and_address(forged, tmp_path):
    with pytest.raises(UsageError) as caught:
        CIFAR10(root=str(tmp_path / "empty")).locate()
    assert caught.value.key == "dataset.root"
    for words in (str(tmp_path / "empty"), cifar10.URL, "download=true"):
        assert words in str(caught.value)
    CIFAR10(root=str(tmp_path / "empty"), download=True).locate()


def test_download_is_verified(forged, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "URL", forged.file.as_uri())
    assert len(CIFAR10(download=True).train()) == 5 * COUNT
    assert (tmp_path / "cache/downloads/cifar-10-python.tar.gz").is_file()
    monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(cifar10, "ARCHIVE_SHA256", "0" * 64)
    with pytest.raises(UsageError, match="is not the publisher's"):
        CIFAR10(download=True).train()
    assert not list((tmp_path / "other/downloads").iterdir())


def test_other_declarations_are_refused():
    with pytest.raises(UsageError, match=r"dataset\.channels: cifar10 has channels 3, but 1"):
        CIFAR10(channels=1)
