"""``flowexp stream`` as a user runs it."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.e2e.command import flowexp

pytestmark = pytest.mark.e2e


def pictures(folder):
    return {p.name: np.asarray(Image.open(p)).tolist() for p in sorted(folder.glob("*.png"))}


@pytest.fixture
def folder(tmp_path):
    """Six pictures, of which the second half repeats one."""
    rng = np.random.default_rng(0)
    root = tmp_path / "camera"
    root.mkdir()
    levels = [rng.integers(0, 256, (12, 20), dtype=np.uint8) for _ in range(4)]
    for number, picture in enumerate([*levels, levels[-1], levels[-1]]):
        Image.fromarray(picture).save(root / f"{number}.png")
    return root


def test_a_folder_of_frames(trained_run, tmp_path, folder):
    common = [f"run={trained_run}", "frames=folder", f"frames.root={folder}", "label=3"]
    outcome = flowexp("stream", *common, "dirs.run=one", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert "frames/s" in outcome.out
    report = json.loads((tmp_path / "one" / "stream.json").read_text())
    assert report["frames"] == 6
    assert report["sources"] == list(range(6))
    assert report["evaluations"] == (6 + 2) * 3
    first = pictures(tmp_path / "one")
    assert list(first) == [f"{i:06d}.png" for i in range(6)]
    assert first["000003.png"] == first["000004.png"] == first["000005.png"]

    outcome = flowexp(
        "stream", *common, "similarity=stochastic", "group=2", "dirs.run=two", cwd=tmp_path
    )
    assert outcome.code == 0, outcome.err
    report = json.loads((tmp_path / "two" / "stream.json").read_text())
    assert report["skipped"] == 2
    assert report["sources"] == [0, 1, 2, 3, 3, 3]
    for name, picture in pictures(tmp_path / "two").items():
        assert np.abs(np.subtract(picture, first[name])).max() <= 1


def test_wrong_use(trained_run, tmp_path):
    for arguments, words in (
        (["times=[1.0,0.5]"], ["times", "above 0 within"]),
        (["label=10"], ["label", "10 classes"]),
        (["group=0"], ["group", "at least 1"]),
        (["frames=folder", "frames.root=nowhere"], ["frames.root", "nowhere"]),
        (["residual_guidance=half"], ["residual_guidance", "one_time"]),
    ):
        outcome = flowexp("stream", f"run={trained_run}", "dirs.run=out", *arguments, cwd=tmp_path)
        assert outcome.code == 2, (arguments, outcome.err)
        assert all(word in outcome.err for word in words), outcome.err
        assert not (tmp_path / "out").exists()
