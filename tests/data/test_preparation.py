"""``flowexp prepare``: pictures of any size and kind become a data set in EDM's layout."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowexp.cli import main
from flowexp.config.check import check
from flowexp.data.image_files import open_images
from flowexp.data.preparation import Recipe, prepare
from flowexp.files import file_sha256

WHITE = (255, 255, 255)
COUNTS = {"daisy": 5, "rose": 3, "tulip": 4}


def noise(width, height, seed=0, channels=3):
    shape = (height, width, channels)[: 2 + (channels > 1)]
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def flowers(tmp_path, monkeypatch):
    """Class folders, one of them nested and one a symbolic link, of mixed sizes and kinds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWEXP_DATA", raising=False)
    root = tmp_path / "flowers"
    for folder in ("daisy/old", "rose", "../elsewhere"):
        (root / folder).mkdir(parents=True)
    (root / "tulip").symlink_to(tmp_path / "elsewhere")
    for i in range(5):
        noise(40 + i, 30, i).save(root / ("daisy" if i else "daisy/old") / f"{i}.png")
    for i in range(3):
        noise(20, 33 + i, i).save(root / "rose" / f"{i}.JPG", format="jpeg")
    for i in range(4):
        noise(17, 17, i, channels=1).save(tmp_path / "elsewhere" / f"{i}.tif")
    return root


def members(file):
    with zipfile.ZipFile(file) as archive:
        return {info.filename: (info, archive.read(info)) for info in archive.infolist()}


def pictures(file):
    return [
        np.asarray(Image.open(io.BytesIO(content)))
        for name, (_, content) in members(file).items()
        if name.endswith(".png")
    ]


def table_of(file):
    return json.loads(members(file)["dataset.json"][1])


def test_class_folders_become_an_archive_that_trains(flowers, capsys):
    command = ["prepare", "in=flowers", "out=f.zip", "resolution=16", "crop=center"]
    assert main(command) == 0
    told = capsys.readouterr().out
    for name, count in COUNTS.items():
        assert any(line.split()[0::2] == [str(count), name] for line in told.splitlines()), told
    assert all(len(line) <= 80 for line in told.splitlines())
    following = told.split("next")[1].split()
    assert following[:2] == ["flowexp", "train"]
    config = check("train", following[2:]).sound()
    assert config["dataset"]["class_names"] == ["daisy", "rose", "tulip"]
    assert [config["dataset"][k] for k in ("resolution", "channels", "num_classes")] == [16, 3, 3]
    assert config["network"]["label_dim"] == 3
    found = members("f.zip")
    names = [f"00000/img{i:08d}.png" for i in range(12)]
    assert list(found) == [*names, "dataset.json"]
    for info, _ in found.values():
        assert info.compress_type == zipfile.ZIP_STORED
        assert info.date_time == (1980, 1, 1, 0, 0, 0)
    labels = [[name, k] for name, k in zip(names, [0] * 5 + [1] * 3 + [2] * 4, strict=True)]
    assert table_of("f.zip") == {"labels": labels, "class_names": ["daisy", "rose", "tulip"]}
    assert {p.shape for p in pictures("f.zip")} == {(16, 16, 3)}

    digest = file_sha256(Path("f.zip"))
    assert main(command) == 2
    assert "out: f.zip already exists." in capsys.readouterr().err
    assert main([*command, "out=g.zip", "workers=1"]) == 0
    assert file_sha256(Path("g.zip")) == digest
    assert sorted(os.listdir()) == ["elsewhere", "f.zip", "flowers", "g.zip"]


def test_broken_pictures_are_named_and_left_out(flowers, capsys):
    (flowers / "rose/0.JPG").write_bytes((flowers / "rose/0.JPG").read_bytes()[:200])
    (flowers / "rose/._1.png").write_text("hidden")
    (flowers / "notes.txt").write_text("no picture")
    assert main(["prepare", "flowers", "out=f.zip", "resolution=32", "heldout=0.25"]) == 1
    told = capsys.readouterr()
    assert "rose/0.JPG is damaged" in told.out
    assert "1 .txt (notes.txt)" in " ".join(told.out.split())
    assert "1 picture is missing in f.zip" in told.err
    assert "11 were smaller than 32x32, the smallest 17x17: tulip/0.tif" in told.out
    typed = " ".join(told.out.replace("\\\n", "").split())  # the command is folded
    assert "dataset.archive=f.zip dataset.test_archive=f-heldout.zip" in typed
    # a quarter of 5, 2 and 4
    assert [k for _, k in table_of("f-heldout.zip")["labels"]] == [0, 2]
    assert [k for _, k in table_of("f.zip")["labels"]] == [0] * 4 + [1] * 2 + [2] * 3


def test_nothing_intact_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("p").mkdir()
    Path("p/a.png").write_text("none")
    assert main(["prepare", "p", "out=f.zip", "resolution=8"]) == 2
    assert "a.png is damaged (its bytes are no image)" in capsys.readouterr().err
    assert os.listdir() == ["p"]


def odd_pictures(root):
    """What the decoder turns round, lays on a background, or converts (EXIF, alpha, ...)."""
    root.mkdir()
    half = np.zeros((8, 8, 3), np.uint8)
    half[:4] = 200
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(half).save(root / "0.png", exif=exif)
    Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(root / "1.png")
    Image.new("LA", (8, 8), (9, 0)).save(root / "2.png")
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(root / "3.png")
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(root / "4.jpg")
    Image.new("P", (8, 8), 1).save(root / "5.png")
    return root


def test_every_kind_of_picture_is_decoded_by_the_one_rule(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    odd_pictures(tmp_path / "odd")
    assert main(["prepare", "odd", "out=f.zip", "resolution=8", "background='#102030'"]) == 0
    turned, alpha, grey_alpha, deep, black, palette = pictures("f.zip")
    assert turned[0].max() == 0
    assert turned[7].min() == 200
    assert (alpha == (16, 32, 48)).all()
    assert len(np.unique(grey_alpha)) == 1
    assert grey_alpha[0, 0, 0] == 29  # the luma of the background
    assert (deep == 255).all()
    assert black.max() < 3
    assert palette.shape == (8, 8, 3)
    assert "class_names" not in table_of("f.zip")
    assert table_of("f.zip")["labels"] is None


@pytest.mark.parametrize(
    ("colour", "shape"), [("grey", (4, 4)), ("auto", (4, 4)), ("rgb", (4, 4, 3))]
)
def test_colour_of_grey_pictures(colour, shape, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("p").mkdir()
    for i in range(3):
        noise(4, 4, i, channels=1).save(f"p/{i}.png")
    assert main(["prepare", "p", "out=f.zip", "resolution=4", f"colour={colour}"]) == 0
    assert {p.shape for p in pictures("f.zip")} == {shape}


def test_auto_makes_a_mixed_set_coloured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("p").mkdir()
    noise(4, 4, 0, channels=1).save("p/a.png")
    noise(4, 4, 1).save("p/b.png")
    assert main(["prepare", "p", "out=f.zip", "resolution=4", "colour=auto"]) == 0
    first, second = pictures("f.zip")
    assert first.shape == second.shape == (4, 4, 3)
    assert (first == first[..., :1]).all()


def test_labels_of_a_json_file_are_kept_with_their_gaps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("p.zip", "w") as archive:
        for i in range(4):
            stream = io.BytesIO()
            noise(8, 8, i).save(stream, format="png")
            archive.writestr(f"a/{i}.png", stream.getvalue())
        labels = [[f"a/{i}.png", 1 + 2 * (i % 2)] for i in range(4)]
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    assert main(["prepare", "p.zip", "out=f.zip", "resolution=8"]) == 0
    assert [k for _, k in table_of("f.zip")["labels"]] == [1, 3, 1, 3]
    assert "0  0 class 0" in capsys.readouterr().out
    with zipfile.ZipFile("p.zip", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a/0.png", b"twice")
    assert main(["prepare", "p.zip", "out=g.zip", "resolution=8"]) == 2
    assert "a/0.png 2 times" in capsys.readouterr().err


class _KilledError(Exception):
    pass


def killed_after(count):
    def track(items, *, total):
        for done, item in enumerate(items):
            if done == count:
                raise _KilledError
            yield item

    return track


def test_a_stopped_preparation_goes_on_with_the_same_settings_only(flowers, capsys):
    files = open_images(flowers, key="in")
    recipe = Recipe(16, "center", "rgb", WHITE)
    with pytest.raises(_KilledError):
        prepare(files, Path("f.zip"), recipe, heldout=0.0, workers=2, track=killed_after(5))
    with Path("f.zip.partial/done.jsonl").open("a") as journal:
        journal.write("[7, 40")  # cut by the kill
    Path("f.zip.partial/00000/img00000009.part").write_bytes(b"half")
    assert main(["prepare", "in=flowers", "out=f.zip", "resolution=8"]) == 2
    told = capsys.readouterr().err
    assert "resolution was 16, not 8" in told
    assert "f.zip.partial" in told
    assert main(["prepare", "in=flowers", "out=f.zip", "resolution=16"]) == 0
    assert "of them were finished before" in capsys.readouterr().out
    assert main(["prepare", "in=flowers", "out=whole.zip", "resolution=16"]) == 0
    assert file_sha256(Path("f.zip")) == file_sha256(Path("whole.zip"))
    assert not Path("f.zip.partial").exists()


def test_changed_pictures_are_not_mixed_with_older_ones(flowers, capsys):
    files = open_images(flowers, key="in")
    recipe = Recipe(16, "center", "rgb", WHITE)
    with pytest.raises(_KilledError):
        prepare(files, Path("f.zip"), recipe, heldout=0.0, workers=2, track=killed_after(5))
    noise(50, 50).save(flowers / "rose/0.JPG", format="jpeg")
    assert main(["prepare", "in=flowers", "out=f.zip", "resolution=16"]) == 2
    assert "the pictures have changed since" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(flowers, capsys, monkeypatch):
    def interrupted(self, content):
        raise KeyboardInterrupt

    monkeypatch.setattr(Recipe, "made", interrupted)
    assert main(["prepare", "flowers", "out=f.zip", "resolution=16", "workers=1"]) == 1
    assert "the same command continues it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["in: prepare needs a folder or ZIP of pictures.", "flowexp prepare in="]),
        (["flowers", "out=f.zip"], ["resolution: must be given"]),
        (["flowers", "resolution=8"], ["out: must be given"]),
        (["flowers", "out=f", "resolution=8"], ["out: f does not end in .zip", "out=f.zip"]),
        (["flowers", "out=flowers/f.zip", "resolution=8"], ["out: ", "out=f.zip"]),
        (["flowers", "out=f.zip", "resolution=0"], ["resolution: 0", "at least 1"]),
        (["flowers", "out=f.zip", "resolution=8", "crop=centre"], ["crop: ", "mean center?"]),
        (["flowers", "out=f.zip", "resolution=8", "colour=gray"], ["colour: ", "mean grey?"]),
        (["flowers", "out=f.zip", "resolution=8", "background=whit"], ["background: unknown"]),
        (["flowers", "out=f.zip", "resolution=8", "heldout=0.9"], ["heldout: 0.9", "0 to 0.5"]),
        (["flowers", "out=f.zip", "resolution=8", "heldout=0.01"], ["heldout: ", "too small"]),
        (["nothere", "out=f.zip", "resolution=8"], ["in: nothere was not found"]),
    ],
)  # fmt: skip
def test_wrong_use(arguments, words, flowers, capsys):
    assert main(["prepare", *arguments]) == 2
    told = capsys.readouterr().err
    assert all(word in told for word in words), told
    assert not Path("f.zip").exists()
