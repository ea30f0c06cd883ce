"""Data sets of torchvision and of Hugging Face's library, from files that the tests write."""

import io
import struct
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from flowexp.cli import main
from flowexp.config.check import check
from flowexp.config.instantiate import instantiate
from flowexp.config.trust import USER, Author, problems_with
from flowexp.data.torchvision_sets import SETS
from flowexp.errors import UsageError

RNG = np.random.default_rng(0)
DIGITS = {"train": RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8),
          "t10k": RNG.integers(0, 256, (20, 28, 28), dtype=np.uint8)}  # fmt: skip


@pytest.fixture
def mnist(tmp_path):
    """A folder as torchvision keeps MNIST."""
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for split, images in DIGITS.items():
        labels = (np.arange(len(images)) % 10).astype(np.uint8)
        header = struct.pack(">4I", 2051, len(images), 28, 28)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">2I", 2049, len(images))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return tmp_path


def of_torchvision(*overrides):
    return check("train", ["dataset=torchvision", "metric=fd_raw", *overrides])


def built(checked):
    return instantiate(checked.sound()["dataset"], key="dataset", by=USER)


def test_a_data_set_of_torchvision(mnist):
    data = built(of_torchvision("dataset.name=MNIST", f"dataset.root={mnist}"))
    data.locate()
    train, heldout = data.train(), data.heldout()
    assert np.array_equal(train.images[:, 0], DIGITS["train"])
    assert np.array_equal(heldout.images[:, 0], DIGITS["t10k"])
    assert train.labels.tolist() == [i % 10 for i in range(30)]
    assert data.class_names[:2] == ("0 - zero", "1 - one")
    other = ("dataset.resolution=14", "dataset.channels=3", "dataset.num_classes=0")
    small = built(of_torchvision("dataset.name=MNIST", f"dataset.root={mnist}", *other))
    assert small.train().images.shape == (30, 3, 14, 14)
    assert small.train().labels is None


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (["dataset.name=CIFAR"], "dataset.name", "mean CIFAR10?"),
        (["dataset.name=VisionDataset"], "dataset.name", "CIFAR10"),
        (["dataset.name=Flowers102"], "dataset.resolution", "dataset.resolution=64"),
    ],
)
def test_wrong_names_are_answered_before_anything_is_read(overrides, key, words):
    problems = of_torchvision("dataset.root=nowhere", *overrides).problems
    assert {problem.key for problem in problems} == {key}
    assert words in problems[0].remedy


def test_missing_files_are_answered(tmp_path):
    data = built(of_torchvision("dataset.name=CIFAR10", f"dataset.root={tmp_path}"))
    with pytest.raises(UsageError, match=r"torchvision finds no CIFAR10.*dataset\.download=true"):
        data.locate()


def test_every_name_is_a_data_set_of_torchvision():
    from torchvision import datasets

    for name in SETS:
        assert issubclass(getattr(datasets, name), datasets.VisionDataset), name


def test_a_stored_config_may_name_them_but_no_other_class(tmp_path):
    stored = of_torchvision("dataset.name=MNIST", f"dataset.root={tmp_path}").sound()
    assert problems_with(stored, by=Author.of("config.yaml")) == []
    foreign = {"dataset": {"_target_": "torchvision.datasets.FakeData"}}
    assert len(problems_with(foreign, by=Author.of("config.yaml"))) == 1


class Saved(list):
    """Rows with features, as a Dataset of the library has them."""

    features: dict

    def cast_column(self, column, feature):
        assert (column, feature) == ("image", {"decode": False})
        return self


def png(size, mode="RGB"):
    stream = io.BytesIO()
    Image.new(mode, size, (10, 20, 30, 0)[: len(mode)]).save(stream, format="png")
    return {"bytes": stream.getvalue(), "path": None}


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A stand-in of the package, and a folder that it has written."""
    train = Saved({"image": png((20, 10)), "label": k} for k in (0, 1, 1))
    test = Saved([{"image": png((4, 4), "RGBA"), "label": 0}])
    names = SimpleNamespace(names=["cat", "dog"])
    train.features = test.features = {"image": object(), "label": names}
    module = ModuleType("datasets")
    module.__version__ = "4.0.0"
    module.Image = dict
    module.load_from_disk = lambda path: {"train": train, "test": test}
    monkeypatch.setitem(sys.modules, "datasets", module)
    (tmp_path / "dataset_dict.json").write_text("{}")
    return module


def of_library(*overrides):
    return check("train", ["dataset=huggingface", "dataset.resolution=8", *overrides])


def test_a_data_set_of_hugging_face(library, tmp_path):
    checked = of_library(f"dataset.path={tmp_path}", "dataset.heldout_split=test")
    assert checked.sound()["dataset"]["class_names"] == ["cat", "dog"]
    assert checked.sound()["network"]["label_dim"] == 2
    data = built(checked)
    data.locate()
    assert data.train().labels.tolist() == [0, 1, 1]
    assert data.train().images[0, :, 0, 0].tolist() == [10, 20, 30]
    assert (data.heldout().images == 255).all()  # transparent, on white
    unlabelled = built(of_library(f"dataset.path={tmp_path}", "dataset.label_column=null"))
    assert unlabelled.train().labels is None
    assert unlabelled.heldout() is None


@pytest.mark.parametrize(
    ("override", "key", "words"),
    [
        ("dataset.path=nowhere", "dataset.path", "dataset.download=true"),
        ("dataset.split=all", "dataset.split", "It has train, test."),
        ("dataset.label_column=kind", "dataset.label_column", "dataset.label_column=label"),
    ],
)
def test_wrong_splits_and_columns_are_named(library, tmp_path, override, key, words):
    (problem,) = of_library(f"dataset.path={tmp_path}", override).problems
    assert problem.key == key
    assert words in problem.remedy


def test_without_the_package_or_with_an_old_one(library, tmp_path, monkeypatch, capsys):
    library.__version__ = "2.21.0"
    (problem,) = of_library(f"dataset.path={tmp_path}").problems
    assert "2.21.0 is too old, because it runs scripts" in problem.text
    monkeypatch.setitem(sys.modules, "datasets", None)
    command = ["check", "dataset=huggingface", f"dataset.path={tmp_path}", "dataset.resolution=8"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.count("not installed") == 1
    assert "pip install 'flowexp[huggingface]'" in said


def test_the_real_package(tmp_path):
    datasets = pytest.importorskip("datasets")
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png((20, 10))["bytes"])
    folder = tmp_path / "saved"
    datasets.load_dataset(str(tmp_path), split="train").save_to_disk(str(folder))
    for path in (tmp_path, folder):
        data = built(of_library(f"dataset.path={path}"))
        assert data.train().labels.tolist() == [0, 0, 1]
        assert data.class_names == ("cat", "dog")
