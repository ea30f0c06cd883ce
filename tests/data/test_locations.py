"""Where things are looked for."""

from pathlib import Path

from flowexp.data.locations import cache_dir, data_dir, first_existing, search_folders


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
