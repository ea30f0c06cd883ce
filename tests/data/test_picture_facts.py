"""``dataset=image_folder`` finds out size, channels, classes and their names by itself."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from flowexp.config.check import check
from flowexp.data.image_archive import ImageArchive
from flowexp.data.image_labels import class_folders
from flowexp.errors import UsageError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FLOWEXP_DATA", raising=False)


def picture(size=8, mode="RGB"):
    pixels = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def folder(tmp_path, names, **options):
    for name in names:
        file = tmp_path / "own" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(**options).save(file)
    return tmp_path / "own"


def composed(*overrides):
    return check("train", ["dataset=image_folder", "dataset.archive=own", *overrides])


def facts(*overrides):
    found = composed(*overrides).sound()["dataset"]
    keys = ("resolution", "channels", "num_classes", "use_labels", "class_names")
    return tuple(found[key] for key in keys)


CLASSES = ["tulip/a.png", "rose/old/b.png", "rose/c.png"]


def test_class_folders_are_classes(tmp_path):
    folder(tmp_path, CLASSES)
    assert facts() == (8, 3, 2, True, ["rose", "tulip"])
    data = ImageArchive(
        archive="own",
        resolution=8,
        num_classes=2,
        use_labels=True,
        class_names=["rose", "tulip"],
    )
    assert data.train().labels.tolist() == [0, 0, 1]
    assert data.class_names == ("rose", "tulip")
    assert facts("dataset.use_labels=false") == (8, 3, 0, False, None)
    assert composed().sound()["network"]["label_dim"] == 2


def test_grey_pictures_without_classes(tmp_path):
    folder(tmp_path, ["a.png", "b.png"], mode="L")
    assert facts() == (8, 1, 0, False, None)


def test_a_json_file_says_more_than_folders(tmp_path):
    root = folder(tmp_path, CLASSES)
    labels = [["tulip/a.png", 3], ["rose/old/b.png", 1], ["rose/c.png", 3]]
    table = {"labels": labels, "class_names": ["w", "x", "y", "z"]}
    (root / "dataset.json").write_text(json.dumps(table))
    assert facts() == (8, 3, 4, True, ["w", "x", "y", "z"])
    assert facts("dataset.remap_labels=true") == (8, 3, 2, True, ["x", "z"])
    (root / "dataset.json").write_text(json.dumps({"labels": None}))
    (root / "new.png").write_bytes((root / "rose/c.png").read_bytes())
    assert facts() == (8, 3, 0, False, None)


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        (["w"], "1 class_names for 4 classes"),
        ("wxyz", "not a list of strings"),
        ([1], "not a list of"),
    ],
)
def test_class_names_that_do_not_fit(tmp_path, names, wrong):
    root = folder(tmp_path, ["a.png"])
    table = {"labels": [["a.png", 3]], "class_names": names}
    (root / "dataset.json").write_text(json.dumps(table))
    (problem,) = composed().problems
    assert problem.key == "dataset.archive"
    assert wrong in problem.text


@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "b.png"],
        ["rose/a.png", "rose/b.png"],
        ["rose/a.png", "tulip/b.png", "c.png"],
        ["00000/img00000000.png", "00001/img00001000.png"],
    ],
)
def test_folders_that_are_no_classes(names):
    assert class_folders(names) is None


def test_the_folders_below_the_shared_one_count():
    found = class_folders(["all/rose/a.png", "all/rose/b/c.png", "all/tulip/d.png"])
    assert found.class_names == ("rose", "tulip")
    assert found.values.tolist() == [0, 0, 1]


def test_pictures_of_several_sizes_are_answered_with_the_command(tmp_path):
    folder(tmp_path, CLASSES)
    picture(9).save(tmp_path / "own/rose/d.png")
    (problem,) = composed().problems
    assert problem.key == "dataset.archive"
    assert "2 sizes (8x8, 9x9)" in problem.text
    assert problem.remedy.endswith("flowexp prepare in=own out=own-64.zip resolution=64")
    with pytest.raises(UsageError, match=r"prepare in=own out=own-8\.zip resolution=8"):
        ImageArchive(archive="own", resolution=8).train()


def test_grey_and_coloured_pictures_are_answered_with_the_command(tmp_path):
    folder(tmp_path, CLASSES)
    picture(mode="L").save(tmp_path / "own/rose/d.png")
    (problem,) = composed().problems
    assert "grey and coloured ones" in problem.text
    assert "flowexp prepare in=own" in problem.remedy


def test_a_missing_folder_is_one_problem_and_a_missing_name_too():
    (problem,) = composed().problems
    assert (problem.key, "own was not found" in problem.text) == ("dataset.archive", True)
    (problem,) = check("train", ["dataset=image_folder"]).problems
    assert problem.key == "dataset.archive"


def test_a_new_class_is_seen(tmp_path):
    root = folder(tmp_path, CLASSES)
    assert facts()[2] == 2
    (root / "aster").mkdir()
    picture().save(root / "aster/a.png")
    assert facts()[4] == ["aster", "rose", "tulip"]


def test_names_of_classes_are_counted():
    with pytest.raises(UsageError, match="1 names for num_classes=2"):
        ImageArchive(archive="own", resolution=8, num_classes=2, use_labels=True, class_names=["a"])


def test_torch_is_not_needed():
    import subprocess

    code = "import sys, flowexp.data.picture_facts, flowexp.data.preparation; " \
           "sys.exit('torch' in sys.modules)"  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
