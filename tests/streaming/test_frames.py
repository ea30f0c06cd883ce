"""Sources of frames."""

import io
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from flowexp.data.digits import Digits
from flowexp.data.toy2d import EightGaussians
from flowexp.errors import UsageError
from flowexp.streaming import FolderFrames, SyntheticFrames

IMAGES = Path(__file__).parents[1] / "data/images"


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


@pytest.mark.parametrize(
    ("name", "words"),
    [("none", "is not a folder"), ("a.png", "is not a folder"), ("empty", "holds no image")],
)
def test_folders_without_images(tmp_path, digits, name, words):
    (tmp_path / "a.png").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=words):
        FolderFrames(root=str(tmp_path / name)).frames(digits)


def test_a_folder_that_must_not_be_read(tmp_path, digits, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UsageError, match=r"cannot be read \(Permission denied\)"):
        FolderFrames(root=str(tmp_path)).frames(digits)


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


def test_a_ramp_of_16_bits_and_a_rotated_image_are_frames_as_they_look(tmp_path):
    shutil.copy(IMAGES / "grey16_ramp.png", tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.zeros((16, 16), dtype=np.uint8)
    upright[:8] = 255
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "b.jpg", exif=exif, quality=100)
    source = FolderFrames(root=str(tmp_path))
    ramp, turned = source.frames(SimpleNamespace(shape=(1, 32, 32)))
    stored = np.asarray(Image.open(tmp_path / "a.png")).astype(np.float64)
    torch.testing.assert_close(
        ramp[0].double(), torch.from_numpy(stored / 32767.5 - 1.0), rtol=0, atol=1.01 / 255
    )
    assert float(turned[0, :12].min()) > 0.9
    assert float(turned[0, 20:].max()) < -0.9
    assert next(source.frames(SimpleNamespace(shape=(3, 32, 32)))).shape == (3, 32, 32)


def test_what_is_no_frame_is_skipped_and_named(tmp_path, caplog):
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(noise).save(content, format="png")
    for name, kept in (
        ("a.png", 999),
        ("b.png", 100),
        ("c.PNG", 999),
        ("._a.png", 3),
        ("t.txt", 3),
    ):
        (tmp_path / name).write_bytes(content.getvalue()[:kept])
    (tmp_path / "d.png").mkdir()
    found = list(FolderFrames(root=str(tmp_path)).frames(SimpleNamespace(shape=(1, 16, 16))))
    assert len(found) == 2
    assert torch.equal(found[0], found[1])
    before, after = [record.message for record in caplog.records]
    for words in ("3 images are read", "._a.png", "t.txt", "no file or a broken link (d.png)"):
        assert words in before
    assert "1 of 3 frames were skipped: b.png is damaged" in after

    for name in ("a.png", "c.PNG"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"^frames\.root: .* can be read: a\.png is damaged") as e:
        list(FolderFrames(root=str(tmp_path)).frames(SimpleNamespace(shape=(1, 16, 16))))
    assert "0x" not in str(e.value)
