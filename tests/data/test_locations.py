"""Where things are looked for."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from flowexp.cli import main
from flowexp.data.locations import (
    cache_dir,
    data_dir,
    decode_once,
    download_dir,
    first_existing,
    search_folders,
)
from flowexp.errors import UsageError
from flowexp.files import warn_without_cache
from flowexp.metrics.weight_files import candidates


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("FLOWEXP_CACHE")
    assert cache_dir() == tmp_path / "xdg/flowexp"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache/flowexp"


def test_root_is_looked_in_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FLOWEXP_DATA", str(tmp_path / "data"))
    assert search_folders(str(tmp_path), well_known=["/known"]) == [tmp_path]
    folders = [tmp_path / "data", Path("/known"), tmp_path / "cache/downloads"]
    assert search_folders(None, well_known=["/known"]) == folders
    monkeypatch.setenv("FLOWEXP_DATA", "")
    assert data_dir() is None
    assert search_folders(None) == folders[2:]


def test_first_existing_goes_folder_by_folder(tmp_path):
    for name in ("one/b", "two/a"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    folders = [tmp_path / "one", tmp_path / "two"]
    assert first_existing(folders, ["a", "b"]) == tmp_path / "one/b"
    assert first_existing(folders, ["c"]) is None


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id that a container knows nothing of."""
    for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "FLOWEXP_CACHE", "FLOWEXP_DATA",
                 "FLOWEXP_WEIGHTS", "TORCH_HOME"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", Mock(side_effect=KeyError("uid not found")))
    warn_without_cache.cache_clear()


def decode(key: str) -> np.ndarray:
    chunks = [np.full((1, 1, 2, 2), i, dtype=np.uint8) for i in range(3)]
    images, _ = decode_once(
        key, shape=(3, 1, 2, 2), chunks=lambda: chunks, in_memory=False, origin="pictures.zip"
    )
    return np.asarray(images)


def test_without_a_home_nothing_is_cached_and_that_is_said_once(
    homeless: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cache_dir() is None
    assert caplog.records == []
    assert decode("a")[2, 0, 0, 0] == decode("b")[2, 0, 0, 0] == 2
    cache_dir(warn=True)
    (record,) = caplog.records
    assert "Set FLOWEXP_CACHE to a folder that can be written." in record.getMessage()
    assert search_folders(None, well_known=["/usr/share/x"]) == [Path("/usr/share/x")]
    with pytest.raises(UsageError, match=r"user has no home\. Set FLOWEXP_CACHE"):
        download_dir()
    assert candidates("w.pth") == [Path("~/.cache/torch/hub/checkpoints/w.pth")]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("home", ["/proc", "/proc/version"])
def test_in_a_home_that_cannot_be_written_nothing_is_cached(
    home: str, homeless: None, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setenv("HOME", home)
    assert decode("a")[2, 0, 0, 0] == decode("b")[2, 0, 0, 0] == 2
    (record,) = caplog.records
    assert f"the cache {home}/.cache/flowexp cannot be written" in record.getMessage()
    assert search_folders(None)[-1] == Path(home) / ".cache/flowexp/downloads"
    assert first_existing(search_folders(None), ["x"]) is None


def test_wrong_use_is_answered_without_a_home(homeless: None, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    job = ["dataset=cifar10", "network.model_channels=8"]
    for more, said in ((["path=linaer"], "linear"), (job, "dataset.root")):
        assert main(["train", f"dirs.run={run}", *more]) == 2
        assert said in capsys.readouterr().err
        assert not run.exists()
