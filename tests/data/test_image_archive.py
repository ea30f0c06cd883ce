"""Archives in EDM's layout and folders, made here from real pictures."""

import io
import json
import logging
import os
import random
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowexp.config.later_options import without_later_options
from flowexp.data import image_files, locations
from flowexp.data.base import fingerprint
from flowexp.data.digits import Digits
from flowexp.data.image_archive import ImageArchive
from flowexp.errors import UsageError
from flowexp.files import file_sha256

COUNT = 60


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FLOWEXP_DATA", raising=False)


@pytest.fixture(scope="module")
def digits():
    return Digits().train().select(np.arange(COUNT))


def encoded(picture, **options):
    pixels = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, **{"format": "png", "compress_level": 0, **options})
    return stream.getvalue()


def name_of(index):
    return f"{index // 1000:05d}/img{index:08d}.png"


def write_zip(file, pictures, labels, *, changes=None, json_text=None):
    """The layout of EDM's dataset_tool: stored members, then dataset.json (here in mixed order)."""
    members = {name_of(i): encoded(p) for i, p in enumerate(pictures)}
    members.update(changes or {})
    table = None
    if labels is not None:
        table = [[name_of(i), np.asarray(x).tolist()] for i, x in enumerate(labels)]
        random.Random(0).shuffle(table)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("dataset.json", json_text or json.dumps({"labels": table}))
    return file


def archive(file, **changes):
    options = {
        "resolution": 8, "channels": 1, "num_classes": 10, "use_labels": True, "name": "made",
        **changes,
    }  # fmt: skip
    return ImageArchive(archive=str(file), **options)


def unlabelled(file, **changes):
    return archive(file, num_classes=0, use_labels=False, **changes)


def test_edm_zip_gives_pictures_and_labels_by_name(digits, tmp_path):
    data = archive(write_zip(tmp_path / "a.zip", digits.images, digits.labels))
    data.locate()
    train = data.train()
    assert np.array_equal(train.images, digits.images)
    assert np.array_equal(train.labels, digits.labels)
    assert train.fingerprint == digits.fingerprint == fingerprint(digits.images, digits.labels)
    assert data.heldout() is None


def test_members_are_taken_in_the_order_of_their_names(digits, tmp_path):
    file = tmp_path / "mixed.zip"
    with zipfile.ZipFile(file, "w") as out:
        for i in reversed(range(COUNT)):
            out.writestr(name_of(i), encoded(digits.images[i]))
        out.writestr("__MACOSX/._img.png", b"not a picture")
    assert np.array_equal(unlabelled(file).train().images, digits.images)


def test_colour_and_label_vectors(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (12, 3, 16, 16), dtype=np.uint8)
    vectors = rng.standard_normal((12, 5)).astype(np.float32)
    file = write_zip(tmp_path / "c.zip", pictures, vectors)
    train = archive(file, resolution=16, channels=3, num_classes=5).train()
    assert np.array_equal(train.images, pictures)
    assert np.array_equal(train.labels, vectors)
    assert train.labels.dtype == np.float32


def test_folder_and_zip_have_the_same_content(digits, tmp_path):
    for i, picture in enumerate(digits.images):
        file = tmp_path / "folder" / name_of(i)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(picture))
    (tmp_path / "folder/notes.txt").write_text("not a picture")
    assert unlabelled(tmp_path / "folder").train().fingerprint == fingerprint(digits.images, None)
    table = [[name_of(i), int(x)] for i, x in enumerate(digits.labels)]
    (tmp_path / "folder/dataset.json").write_text(json.dumps({"labels": table}))
    assert archive(tmp_path / "folder").train().fingerprint == digits.fingerprint


def test_lossless_webp_and_jpeg_files_are_read(digits, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    picture = np.repeat(np.kron(digits.images[0], np.ones((2, 2), dtype=np.uint8)), 3, axis=0)
    (folder / "a.webp").write_bytes(encoded(picture, format="webp", lossless=True))
    (folder / "b.JPG").write_bytes(encoded(picture, format="jpeg", quality=100))
    images = unlabelled(folder, resolution=16, channels=3).train().images
    assert np.array_equal(images[0], picture)
    assert np.abs(images[1].astype(int) - picture).max() <= 8


def test_second_start_reads_the_cache(digits, tmp_path, monkeypatch):
    file = write_zip(tmp_path / "a.zip", digits.images, digits.labels)
    first = archive(file).train()
    assert isinstance(first.images, np.memmap)

    def unexpected(*_):
        raise AssertionError("a picture was decoded again")

    monkeypatch.setattr(image_files.ImageFiles, "_decode_into", unexpected)
    first.images[0] = 7
    again = archive(file, in_memory=True).train()
    assert not isinstance(again.images, np.memmap)
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.images, digits.images)
    assert not list((tmp_path / "cache/decoded").glob(".*"))


def test_a_changed_archive_is_decoded_again(digits, tmp_path):
    file = write_zip(tmp_path / "a.zip", digits.images, digits.labels)
    before = archive(file).train()
    write_zip(file, digits.images[::-1], digits.labels)
    after = archive(file).train()
    assert after.fingerprint != before.fingerprint
    assert np.array_equal(after.images, digits.images[::-1])


def test_a_damaged_cache_is_replaced(digits, tmp_path):
    file = write_zip(tmp_path / "a.zip", digits.images, digits.labels)
    expected = archive(file).train().fingerprint
    folder = tmp_path / "cache/decoded"
    for damage in ("*.npy", "*.json"):
        (entry,) = folder.glob(damage)
        entry.write_bytes(entry.read_bytes()[:20])
        assert archive(file).train().fingerprint == expected
    (entry,) = folder.glob("*.npy")
    entry.write_bytes(entry.read_bytes()[:-1] + b"\xaa")
    images = archive(file, in_memory=True).train().images
    assert np.array_equal(images, digits.images)


def test_an_unwritable_cache_means_decoding_in_memory_with_a_warning(
    digits, tmp_path, monkeypatch, caplog
):
    (tmp_path / "occupied").write_text("a file, not a folder")
    monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path / "occupied"))
    file = write_zip(tmp_path / "a.zip", digits.images, digits.labels)
    with caplog.at_level(logging.WARNING):
        train = archive(file).train()
    assert train.fingerprint == digits.fingerprint
    assert "FLOWEXP_CACHE" in caplog.text


def test_a_full_disk_means_decoding_in_memory_and_leaves_nothing(
    digits, tmp_path, monkeypatch, caplog
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    file = write_zip(tmp_path / "a.zip", digits.images, digits.labels)
    assert archive(file).train().fingerprint == digits.fingerprint
    assert "No space left" in caplog.text
    assert not list((tmp_path / "cache/decoded").iterdir())


def test_subset_is_edms_choice(digits, tmp_path):
    file = write_zip(tmp_path / "a.zip", digits.images, digits.labels)
    order = np.arange(COUNT)
    np.random.RandomState(3).shuffle(order)
    kept = np.sort(order[:17])
    part = archive(file, max_size=17, subset_seed=3).train()
    assert np.array_equal(part.images, digits.images[kept])
    assert np.array_equal(part.labels, digits.labels[kept])
    assert archive(file, max_size=1000).train().fingerprint == digits.fingerprint
    assert archive(file, max_size=17, subset_seed=4).train().fingerprint != part.fingerprint


def test_test_archive_is_held_out_and_notice_is_passed_on(digits, tmp_path):
    file = write_zip(tmp_path / "a.zip", digits.images[:40], digits.labels[:40])
    test = write_zip(tmp_path / "b.zip", digits.images[40:], digits.labels[40:])
    data = archive(file, test_archive=str(test), notice="lossy copy", max_size=5)
    data.locate()
    assert len(data.train()) == 5
    assert np.array_equal(data.heldout().images, digits.images[40:])
    assert data.heldout().name == "made/heldout"
    assert data.train().notice == data.heldout().notice == data.notice == "lossy copy"
    with pytest.raises(UsageError, match=r"dataset\.test_archive: .*no\.zip was not found"):
        archive(file, test_archive=str(tmp_path / "no.zip")).locate()


def test_relative_names_are_found_below_the_data_folder(digits, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    write_zip(tmp_path / "data/a.zip", digits.images, digits.labels)
    with pytest.raises(UsageError, match=r"dataset\.archive: a\.zip was not found.*FLOWEXP_DATA"):
        archive("a.zip").locate()
    monkeypatch.setenv("FLOWEXP_DATA", str(tmp_path / "data"))
    assert archive("a.zip").train().fingerprint == digits.fingerprint


@pytest.mark.parametrize(
    ("declared", "key", "both"),
    [
        ({"resolution": 16}, "dataset.resolution", ("16", "resolution 8")),
        ({"channels": 3}, "dataset.channels", ("3", "channels 1")),
    ],
)
def test_other_shapes_than_declared_are_found_before_decoding(
    digits, tmp_path, declared, key, both
):
    file = write_zip(tmp_path / "a.zip", digits.images, digits.labels)
    with pytest.raises(UsageError) as caught:
        archive(file, **declared).locate()
    assert caught.value.key == key
    for words in (*both, str(file)):
        assert words in str(caught.value)


def test_more_classes_than_declared_are_refused(digits, tmp_path):
    file = write_zip(tmp_path / "a.zip", digits.images, digits.labels)
    with pytest.raises(UsageError, match=r"dataset\.num_classes: made/train has labels 0\.\.9.*=7"):
        archive(file, num_classes=7).train()


def test_contradicting_options_are_refused():
    with pytest.raises(UsageError, match=r"dataset\.num_classes: 10 contradicts use_labels=False"):
        archive("a.zip", use_labels=False)
    with pytest.raises(UsageError, match=r"dataset\.num_classes: 0 contradicts use_labels=True"):
        archive("a.zip", num_classes=0)
    with pytest.raises(UsageError, match=r"dataset\.max_size"):
        archive("a.zip", max_size=0)
    with pytest.raises(UsageError, match=r"dataset\.channels"):
        archive("a.zip", channels=4)


def oblong(digits):
    return encoded(digits.images[5][:, :6])


def coloured(digits):
    return encoded(np.repeat(digits.images[5], 3, axis=0))


def large(digits):
    return encoded(np.zeros((1, 16, 16), dtype=np.uint8))


def cut(digits):
    return encoded(digits.images[5])[:-40]


def nonsense(digits):
    return b"this is no picture"


def see_through(digits):
    stream = io.BytesIO()
    Image.new("RGBA", (8, 8)).save(stream, format="png")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (oblong, "is 8x6, not square"),
        (coloured, "is 8x8 with 3 channels, but .*img00000000.png is 8x8 with 1 channel"),
        (large, "is 16x16 with 1 channel, but"),
        (cut, "is damaged"),
        (nonsense, "is damaged"),
        (see_through, "has mode RGBA"),
    ],
)
def test_a_bad_member_is_named(digits, tmp_path, make, message):
    file = write_zip(
        tmp_path / "a.zip", digits.images, digits.labels, changes={name_of(41): make(digits)}
    )
    with pytest.raises(UsageError, match=rf"^dataset\.archive: .*{name_of(41)} {message}"):
        archive(file).train()
    assert not list((tmp_path / "cache/decoded").iterdir())


def test_a_flipped_bit_is_found_by_the_checksum(digits, tmp_path):
    file = write_zip(tmp_path / "a.zip", digits.images, digits.labels)
    content = bytearray(file.read_bytes())
    content[content.index(encoded(digits.images[7])) + 60] ^= 1
    file.write_bytes(content)
    with pytest.raises(UsageError, match=rf"{name_of(7)} is damaged .*CRC"):
        archive(file).train()


def test_truncated_and_foreign_archives_are_refused(digits, tmp_path):
    file = write_zip(tmp_path / "a.zip", digits.images, digits.labels)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UsageError, match=r"a\.zip is not a readable ZIP archive"):
        archive(file).locate()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no image"):
        archive(tmp_path / "empty").locate()


def labels_json(digits, **changes):
    table = {name_of(i): int(x) for i, x in enumerate(digits.labels)}
    table.update(changes)
    return table


def without_last(digits):
    return {"labels": list(labels_json(digits).items())[:-1]}


def one_too_many(digits):
    return {"labels": [*labels_json(digits).items(), ["00099/img00099999.png", 1]]}


def mixed_kinds(digits):
    table = labels_json(digits)
    table[name_of(3)] = [1.0, 2.0]
    return {"labels": list(table.items())}


def words_as_labels(digits):
    return {"labels": [[name, str(label)] for name, label in labels_json(digits).items()]}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_last, f"59 labels for 60 images, and none for {name_of(59)}"),
        (one_too_many, r"61 labels for 60 images; 00099/img00099999\.png"),
        (mixed_kinds, "mixes labels of several kinds"),
        (words_as_labels, "neither integers nor vectors"),
        (lambda _: {"labels": None}, "has no labels"),
        (lambda _: {"classes": []}, "is damaged"),
        (lambda _: {"labels": [1, 2]}, "is damaged"),
    ],
)
def test_labels_that_do_not_match_are_refused(digits, tmp_path, make, message):
    file = write_zip(tmp_path / "a.zip", digits.images, None, json_text=json.dumps(make(digits)))
    with pytest.raises(UsageError, match=message):
        archive(file).train()


def test_labels_as_a_json_object_are_read(digits, tmp_path):
    text = json.dumps({"labels": labels_json(digits)})
    file = write_zip(tmp_path / "a.zip", digits.images, None, json_text=text)
    assert archive(file).train().fingerprint == digits.fingerprint


def test_a_folder_without_labels_says_how_to_do_without(digits, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(digits.images[0]))
    with pytest.raises(UsageError, match=r"dataset\.use_labels: .*use_labels=false"):
        archive(tmp_path).train()


IMAGES = Path(__file__).parent / "images"


def written(folder, pictures, names):
    for name, picture in zip(names, pictures, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(picture))
    return folder


def zip_of(file, members):
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as out:
        warnings.simplefilter("ignore")
        for name, content in members:
            out.writestr(name, content)
    return file


def test_images_of_every_suffix_are_read_and_the_rest_is_named_once(tmp_path, caplog):
    folder = shutil.copytree(IMAGES / "mixed_suffix", tmp_path / "own")
    for name in ("notes.txt", "._zz0.bmp", ".DS_Store", "Thumbs.db"):
        (folder / name).write_bytes(b"no image")
    (folder / "gone.png").symlink_to("nowhere")
    for _ in range(2):
        assert len(unlabelled(folder, channels=3).train()) == 8
    (said,) = [record.message for record in caplog.records]
    for words in (
        "8 images are read, 5 files are left out", "1 .txt (notes.txt)", "1 .db (Thumbs.db)",
        "2 hidden (.DS_Store, ._zz0.bmp)", "broken link (gone.png)", ".gif", "the first is read",
    ):  # fmt: skip
        assert words in said
    assert unlabelled(folder, channels=3).reading()["left_out"] == said


def test_nothing_is_said_of_a_folder_of_images_and_their_labels(digits, tmp_path, caplog):
    archive(write_zip(tmp_path / "a.zip", digits.images, digits.labels)).train()
    assert not caplog.records


def test_linked_class_folders_and_files_are_read_and_loops_end(digits, tmp_path):
    names = ["a/0.png", "a/deep/1.png", "b/2.png", "c/3.png"]
    expected = unlabelled(written(tmp_path / "plain", digits.images, names)).train()
    store = written(tmp_path / "store", digits.images, ["x/0.png", "x/deep/1.png", "y.png"])
    linked = written(tmp_path / "linked", digits.images[3:], ["c/3.png"])
    (linked / "a").symlink_to(store / "x")
    (linked / "b").mkdir()
    (linked / "b/2.png").symlink_to(store / "y.png")
    (linked / "c/up").symlink_to(linked)
    (linked / "c/itself").symlink_to(linked / "c")
    assert unlabelled(linked).train().fingerprint == expected.fingerprint


def test_files_are_taken_in_the_order_of_their_names_with_folders(digits, tmp_path):
    names = ["b.png", "a/9.png", "a-/1.png", "a/10.png", "B.png", "a/b/0.png"]
    folder = written(tmp_path / "own", digits.images, names)
    order = np.argsort(names)
    assert np.array_equal(unlabelled(folder).train().images, digits.images[order])


def test_rotated_and_deep_images_are_read_as_they_look(digits, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = digits.images[4]
    folder = written(tmp_path / "own", [picture], ["a.png"])
    turned = np.ascontiguousarray(np.rot90(picture, axes=(1, 2)))
    (folder / "b.png").write_bytes(encoded(turned, exif=exif))
    deep = Image.fromarray(picture[0].astype(np.uint16) * 257)
    deep.save(folder / "c.tif")
    found = unlabelled(folder).train()
    assert np.array_equal(found.images, np.stack([picture] * 3))


def test_content_decides_what_the_cache_holds_not_size_and_time(digits, tmp_path):
    """Also where digests are remembered: a file that was rewritten has another ctime."""
    folder = written(tmp_path / "own", digits.images[:2], ["a.png", "b.png"])
    file = write_zip(tmp_path / "a.zip", digits.images[:2], None)
    for place, change in (
        (folder / "a.png", lambda: written(folder, digits.images[2:], ["a.png"])),
        (file, lambda: write_zip(file, digits.images[2:4], None)),
    ):
        data = folder if place.parent == folder else file
        before, stat = unlabelled(data).train(), place.stat()
        change()
        os.utime(place, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        now = place.stat()
        assert (now.st_size, now.st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
        after = unlabelled(data).train()
        assert np.array_equal(after.images[0], digits.images[2])
        assert after.fingerprint != before.fingerprint


def test_digests_of_settled_files_are_remembered_until_they_change(tmp_path, monkeypatch):
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        file.write_bytes(b"first")
    read = []
    monkeypatch.setattr(locations, "_SETTLED_NS", -(10**15))

    def digest(file, *, on_piece):
        read.append(file)
        return file_sha256(file, on_piece=on_piece)

    monkeypatch.setattr(locations, "file_sha256", digest)
    first, again = locations.content_digest(files), locations.content_digest(files)
    assert first == again
    assert len(read) == 2
    stat = files[0].stat()
    files[0].write_bytes(b"other")
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert locations.content_digest(files) != first
    assert len(read) == 4
    monkeypatch.setattr(locations, "_SETTLED_NS", 10**15)
    locations.content_digest(files)
    assert len(read) == 6


def test_a_damaged_archive_is_not_served_from_the_cache(digits, tmp_path):
    file = write_zip(tmp_path / "a.zip", digits.images, None)
    unlabelled(file).train()
    content, stat = bytearray(file.read_bytes()), file.stat()
    content[content.index(encoded(digits.images[7])) + 60] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(UsageError, match=rf"{name_of(7)} is damaged"):
        unlabelled(file).train()


def test_an_archive_with_a_name_twice_is_refused(tmp_path):
    file = shutil.copy(IMAGES / "duplicate_names.zip", tmp_path)
    for data in (archive(file, channels=3, num_classes=3), unlabelled(file, channels=3)):
        with pytest.raises(
            UsageError, match=r"^dataset\.archive: .*img00000000\.png 2 times; 12 of"
        ):
            data.locate()


@pytest.mark.parametrize("second", ["a/x.png", "./a/x.png", "a\\x.png", "A/x.PNG", "/a//x.png"])
def test_two_spellings_of_a_name_are_refused(digits, tmp_path, second):
    contents = [encoded(picture) for picture in digits.images[:3]]
    members = zip(["a/w.png", "a/x.png", second], contents, strict=True)
    with pytest.raises(UsageError, match=r"a/x\.png.* 2 times; 2 of its 3 files"):
        unlabelled(zip_of(tmp_path / "a.zip", members)).locate()


def test_other_files_may_have_one_name(digits, tmp_path):
    members = [("a.png", encoded(digits.images[0])), ("README", b"1"), ("readme", b"2")]
    assert len(unlabelled(zip_of(tmp_path / "a.zip", members)).train()) == 1


def test_names_that_begin_in_the_current_folder_are_read_with_their_labels(digits, tmp_path):
    members = [(f"./{i}.png", encoded(digits.images[i])) for i in range(3)]
    members.append(("./dataset.json", json.dumps({"labels": [[f"{i}.png", i] for i in range(3)]})))
    train = archive(zip_of(tmp_path / "a.zip", members), num_classes=3).train()
    assert np.array_equal(train.images, digits.images[:3])
    assert train.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("-1", "gives a.png the class -1, but classes count from 0"),
        ("1.5", "neither integers nor vectors of finite numbers: 1.5 for a.png"),
        ("NaN", "neither integers nor vectors of finite numbers: NaN for a.png"),
        ("[1.0, NaN]", r"neither .* numbers: \[1.0, NaN\] for a.png"),
        ('"cat"', 'neither .*: "cat" for a.png'),
        ("true", "neither .*: true for a.png"),
        ("null", "neither .*: null for a.png"),
        ("[]", r"neither .*: \[\] for a.png"),
        ("1e400", "neither .*: Infinity for a.png"),
        ("99999999999999999999", "gives a.png the class 9999"),
        ('0], ["a.png", 1', "is damaged .it lists a.png twice"),
        ('0], ["./a.png", 1', "is damaged .it lists a.png twice"),
    ],
)
def test_labels_of_other_kinds_are_named(digits, tmp_path, label, message):
    folder = written(tmp_path / "own", digits.images, ["a.png", "b.png"])
    (folder / "dataset.json").write_text(f'{{"labels": [["b.png", 1], ["a.png", {label}]]}}')
    with pytest.raises(UsageError, match=message):
        archive(folder).train()


def test_a_json_object_with_a_name_twice_is_refused(digits, tmp_path):
    folder = written(tmp_path / "own", digits.images, ["a.png"])
    (folder / "dataset.json").write_text('{"labels": {"a.png": 0, "a.png": 1}}')
    with pytest.raises(UsageError, match=r"it lists a\.png twice"):
        archive(folder).train()


@pytest.mark.parametrize(
    ("labels", "num_classes", "missing", "remedies"),
    [
        ([1, 2, 3], 3, "class 0", ("remap_labels=true dataset.num_classes=3", "num_classes=4")),
        ([0, 2], 2, "class 1", ("remap_labels=true dataset.num_classes=2", "num_classes=3")),
        ([5, 9], 5, "classes 0, 1, 2, 3, 4", ("num_classes=2", "num_classes=10")),
    ],
)
def test_labels_with_gaps_are_explained_and_numbered_anew_on_request(
    digits, tmp_path, labels, num_classes, missing, remedies
):
    given = np.resize(labels, COUNT)
    file = write_zip(tmp_path / "a.zip", digits.images, given)
    with pytest.raises(UsageError) as caught:
        archive(file, num_classes=num_classes).train()
    for words in (f"no image has {missing}.", *remedies):
        assert words in str(caught.value)
    kept = archive(file, num_classes=10).train()
    assert kept.classes_without_images == sorted(set(range(10)) - set(labels))
    assert np.array_equal(kept.labels, given)
    data = archive(file, num_classes=len(labels), remap_labels=True, test_archive=str(file))
    for arrays in (data.train(), data.heldout()):
        assert np.array_equal(np.array(labels)[arrays.labels], given)
        assert arrays.classes_without_images == []
    assert data.reading()["labels_of_classes"] == labels


def test_the_later_option_leaves_stored_runs_as_they_are():
    node = {"_target_": "flowexp.data.image_archive.ImageArchive", "archive": "a.zip"}
    for value, kept in ((False, node), (True, {**node, "remap_labels": True})):
        assert (
            without_later_options({"dataset": {**node, "remap_labels": value}})["dataset"] == kept
        )


def test_what_cannot_be_numbered_anew_is_refused(digits, tmp_path):
    file = write_zip(tmp_path / "a.zip", digits.images, digits.labels)
    with pytest.raises(UsageError, match=r"dataset\.num_classes: made has num_classes 10, but 3"):
        archive(file, num_classes=3, remap_labels=True).train()
    other = write_zip(tmp_path / "b.zip", digits.images, digits.labels + 1)
    data = archive(file, remap_labels=True, test_archive=str(other))
    with pytest.raises(UsageError, match=r"dataset\.test_archive: .* has label 10, which no image"):
        data.heldout()
    vectors = write_zip(tmp_path / "c.zip", digits.images, np.eye(10)[digits.labels])
    with pytest.raises(UsageError, match=r"dataset\.remap_labels: .*label vectors"):
        archive(vectors, remap_labels=True).train()
    with pytest.raises(UsageError, match=r"dataset\.remap_labels: .*use_labels=false"):
        unlabelled(file, remap_labels=True)


@pytest.mark.slow
@pytest.mark.skipif(
    "FLOWEXP_CIFAR10_JPEG" not in os.environ, reason="FLOWEXP_CIFAR10_JPEG names no folder"
)
def test_lossy_cifar10_has_its_known_content():
    folder = Path(os.environ["FLOWEXP_CIFAR10_JPEG"])
    data = ImageArchive(
        archive=str(folder / "cifar10-jpeg-train.zip"),
        test_archive=str(folder / "cifar10-jpeg-test.zip"),
        resolution=32, channels=3, num_classes=10, use_labels=True,
    )  # fmt: skip
    train, heldout = data.train(), data.heldout()
    assert train.images.shape == (50_000, 3, 32, 32)
    assert heldout.images.shape == (10_000, 3, 32, 32)
    assert np.array_equal(train.labels, np.arange(50_000) % 10)
    for arrays, means in (
        (train, (0.49125, 0.48209, 0.44652)),
        (heldout, (0.49407, 0.48506, 0.45038)),
    ):
        np.testing.assert_allclose(arrays.images.mean((0, 2, 3)) / 255, means, atol=2e-5)
