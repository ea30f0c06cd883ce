"""Sources of frames."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from flowexp.data.digits import Digits
from flowexp.data.toy2d import EightGaussians
from flowexp.errors import UsageError
from flowexp.streaming import FolderFrames, SyntheticFrames


@pytest.fixture(scope="module")
def digits():
    return Digits()


def test_a_folder_in_the_order_of_names_cut_and_resized(tmp_path, digits):
    for number, name in enumerate(["b.png", "a.png", "c.jpg"]):
        levels = np.full((20, 30, 3), 80 * number, dtype=np.uint8)
        levels[:, :5] = levels[:, -5:] = 255
        Image.fromarray(levels).save(tmp_path / name, quality=100)
    (tmp_path / "notes.txt").write_text("no picture")
    found = list(FolderFrames(root=str(tmp_path)).frames(digits))
    assert [tuple(x.shape) for x in found] == [digits.shape] * 3
    assert all(x.dtype == torch.float32 for x in found)
    middles = [round(float(x[0, 4, 4]) * 127.5 + 127.5) for x in found]
    assert middles == pytest.approx([80, 0, 160], abs=2)
    # the borders are outside the square in the middle; the filter reaches out by a little
    assert float(found[1].max()) < -0.8


def test_colour_pictures(tmp_path):
    levels = np.zeros((8, 8, 3), dtype=np.uint8)
    levels[..., 1] = 255
    Image.fromarray(levels).save(tmp_path / "x.png")
    (frame,) = FolderFrames(root=str(tmp_path)).frames(SimpleNamespace(shape=(3, 8, 8)))
    assert frame[:, 0, 0].tolist() == [-1.0, 1.0, -1.0]


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_folders_without_pictures(tmp_path, digits, what):
    root = tmp_path / "none" if what == "missing" else tmp_path
    with pytest.raises(UsageError, match=r"folder|no image"):
        FolderFrames(root=str(root)).frames(digits)


def test_synthetic_frames_move_and_change(digits):
    found = list(SyntheticFrames(count=12, hold=4, radius=1.0).frames(digits))
    assert len(found) == 12
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[0].flatten().sort().values, found[3].flatten().sort().values)
    assert not torch.equal(found[0].flatten().sort().values, found[4].flatten().sort().values)
    again = list(SyntheticFrames(count=12, hold=4, radius=1.0).frames(digits))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    still = list(SyntheticFrames(count=4, hold=4, radius=0.0).frames(digits))
    assert all(torch.equal(x, still[0]) for x in still)


def test_a_camera_takes_its_time(digits):
    start = time.monotonic()
    list(SyntheticFrames(count=4, fps=50.0).frames(digits))
    assert time.monotonic() - start >= 3 / 50.0


def test_refuses():
    wrong = [
        ({"count": 0}, "count=0"),
        ({"hold": 0}, "hold=0"),
        ({"radius": -1.0}, "radius=-1"),
        ({"fps": 0.0}, "fps is 0"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            SyntheticFrames(**options)
    points = EightGaussians(size=16, heldout_size=16, num_classes=8)
    with pytest.raises(UsageError, match="images"):
        SyntheticFrames().frames(points)
