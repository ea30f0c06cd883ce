"""Starting, continuing and reading runs; every refusal says what to do."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from flowexp.errors import UsageError
from flowexp.files import write_text
from flowexp.runs import RunDirectory, is_first_process
from flowexp.runs.run_directory import changed_keys, config_digest

CONFIG: dict[str, Any] = {
    "seed": 0,
    "trainer": {"max_kimg": 10, "batch_size": 64, "log_every": 50, "devices": 1},
    "network": {"channels": [1, 2], "dropout": None},
    "logger": {"csv": {"name": "a"}},
}


def changed(**values: Any) -> dict[str, Any]:
    """The configuration with dotted keys replaced."""
    config = json.loads(json.dumps(CONFIG))
    for key, value in values.items():
        *groups, last = key.split("__")
        node = config
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
    return config


def test_a_new_run_has_its_files_and_reads_back(tmp_path: Path) -> None:
    run = RunDirectory.start(
        tmp_path / "run", config=CONFIG, overrides=["seed=0"], manifest={"seed": 0}
    )
    names = {file.name for file in run.path.iterdir()}
    assert names == {"config.yaml", "overrides.yaml", "manifest.json", "checkpoints", "samples"}
    assert run.config() == CONFIG
    assert run.overrides() == ["seed=0"]
    assert run.latest_checkpoint() is None


def test_the_manifest_of_the_first_start_is_kept(tmp_path: Path) -> None:
    for number in (1, 2):
        run = RunDirectory.start(tmp_path, config=CONFIG, manifest={"start": number})
    assert json.loads(run.manifest_file.read_text()) == {"start": 1}


TRAINED: dict[str, Any] = {
    "dataset_fingerprint": "aaa",
    "dataset_size": 20,
    "source_fingerprint": "ccc",
    "source_size": 7,
    "packages": {"pillow": "12.0"},
    "parents": {
        "objective.teacher": {"run": "r", "sha256": "111"},
        "sampler.refiner": {"run": "r", "sha256": "222"},
        "init": {"run": "r", "sha256": "333"},
    },
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"dataset_fingerprint": "bbb", "dataset_size": 21},
            ["dataset: ", "20 images with the fingerprint aaa",
             "21 images with the fingerprint bbb", "dirs.run"],
        ),
        ({"dataset_fingerprint": "bbb"}, ["aaa", "20 images with the fingerprint bbb"]),
        (
            {"dataset_fingerprint": "bbb", "packages": {"pillow": "13.0"}},
            ["(Pillow 12.0 then, 13.0 now)"],
        ),
        ({"source_fingerprint": "ddd"}, ["path.source.dataset: ", "7 images with", "ccc", "ddd"]),
        (
            {"parents": {"objective.teacher": {"run": "r", "sha256": "999"}}},
            ["objective.teacher: ", "111", "999"],
        ),
    ],
)  # fmt: skip
def test_a_run_does_not_go_on_with_other_data_or_another_teacher(
    tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    RunDirectory.start(tmp_path, config=CONFIG, manifest=TRAINED)
    before = {file.name: file.read_bytes() for file in tmp_path.glob("*.*")}
    with pytest.raises(UsageError) as caught:
        RunDirectory.start(tmp_path, config=CONFIG, manifest={**TRAINED, **change})
    for word in words:
        assert word in str(caught.value)
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.*")} == before


@pytest.mark.parametrize(
    ("first", "now"),
    [
        (TRAINED, TRAINED),
        ({}, TRAINED),  # of a start that recorded nothing
        ({"dataset_fingerprint": "aaa"}, TRAINED),  # of an earlier version
        ({**TRAINED, "parents": [{"role": "checkpoint", "sha256": "0"}]}, TRAINED),  # imported
        (TRAINED, {**TRAINED, "parents": {"sampler.refiner": {"run": "r", "sha256": "9"}}}),
        (TRAINED, {**TRAINED, "parents": {"init": {"run": "r", "sha256": "9"}}}),
        (TRAINED, {**TRAINED, "packages": {"pillow": "13.0"}}),
    ],
)
def test_a_run_goes_on_with_the_same_data(
    tmp_path: Path, first: dict[str, Any], now: dict[str, Any]
) -> None:
    RunDirectory.start(tmp_path, config=CONFIG, manifest=first)
    assert RunDirectory.start(tmp_path, config=CONFIG, manifest=now).manifest() == first


@pytest.mark.parametrize(
    "free",
    [
        {"trainer__max_kimg": 20},
        {"trainer__log_every": 1},
        {"trainer__devices": 2},
        {"trainer__micro_batch": 8},
        {"trainer__compile": True, "trainer__channels_last": False},
        {"logger": {}},
        {"callbacks": {"progress": {"a": 1}}},
        {"dirs__run": "elsewhere"},
        {"sampler__steps": 3},
    ],
)
def test_what_does_not_change_the_training_may_change(tmp_path: Path, free: dict[str, Any]) -> None:
    RunDirectory.start(tmp_path, config=CONFIG)
    run = RunDirectory.start(tmp_path, config=changed(**free))
    assert run.config() == changed(**free)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"trainer__max_kimg": 5}, "trainer.max_kimg: 10 -> 5"),
        ({"trainer__batch_size": 32}, "trainer.batch_size: 64 -> 32"),
        ({"network__channels": [1, 4]}, "network.channels: [1, 2] -> [1, 4]"),
        ({"network__depth": 2}, "network.depth: (absent) -> 2"),
    ],
)
def test_another_configuration_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    RunDirectory.start(tmp_path, config=CONFIG)
    with pytest.raises(UsageError) as caught:
        RunDirectory.start(tmp_path, config=changed(**change))
    assert caught.value.key == "dirs.run"
    assert f"({text})" in caught.value.problem
    assert "dirs.run=" in str(caught.value.remedy)
    assert RunDirectory(tmp_path).config() == CONFIG


def test_long_lists_of_changes_are_cut() -> None:
    other = changed(**{f"network__key{number}": 1 for number in range(12)})
    assert len(changed_keys(CONFIG, other)) == 12


def test_tuples_and_lists_are_the_same_value() -> None:
    assert changed_keys(CONFIG, changed(network__channels=(1, 2))) == {}


def test_the_digest_ignores_output_folders_only() -> None:
    assert config_digest(CONFIG) == config_digest(changed(dirs__run="elsewhere"))
    assert config_digest(CONFIG) != config_digest(changed(seed=1))


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    RunDirectory.start(tmp_path / "run", config=CONFIG)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "1"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),
    ],
)
def test_which_process_writes(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], first: bool
) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is first


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    run = RunDirectory.start(tmp_path, config=CONFIG)
    half = run.checkpoints / ".last.12-ab.ckpt"
    half.write_text("half")
    whole = write_text(run.checkpoints / "last.ckpt", "whole")
    RunDirectory.start(tmp_path, config=CONFIG)
    assert list(run.checkpoints.iterdir()) == [whole]


@pytest.mark.skipif(os.name != "posix", reason="a file in the place of a folder")
def test_a_place_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"dirs\.run: the run directory .* cannot be written"):
        RunDirectory.start(tmp_path / "file" / "run", config=CONFIG)


def test_open_names_runs_nearby(tmp_path: Path) -> None:
    for name in ("train-1", "train-2"):
        RunDirectory.start(tmp_path / name, config=CONFIG)
    with pytest.raises(UsageError, match=r"run: .*train-3 is not a run directory") as caught:
        RunDirectory.open(tmp_path / "train-3")
    assert str(tmp_path / "train-1") in str(caught.value.remedy)
    with pytest.raises(UsageError, match="Name a run directory"):
        RunDirectory.open(tmp_path / "train-1" / "samples" / "x")


def test_open_wants_a_checkpoint_unless_told_otherwise(tmp_path: Path) -> None:
    RunDirectory.start(tmp_path, config=CONFIG)
    with pytest.raises(UsageError, match=r"teacher: the run .* has no checkpoint yet"):
        RunDirectory.open(tmp_path, key="teacher")
    assert RunDirectory.open(tmp_path, checkpoint=False).path == tmp_path


def test_checkpoints_by_name(tmp_path: Path) -> None:
    run = RunDirectory.start(tmp_path, config=CONFIG)
    with pytest.raises(UsageError, match="It has none at all"):
        run.checkpoint("last")
    old = write_text(run.checkpoints / "step-000000090.ckpt", "")
    new = write_text(run.checkpoints / "step-000000120.ckpt", "")
    assert run.latest_checkpoint() == new
    last = write_text(run.checkpoints / "last.ckpt", "")
    assert run.latest_checkpoint() == last == run.checkpoint("last")
    assert run.checkpoint("90") == run.checkpoint("step-000000090.ckpt") == old
    with pytest.raises(UsageError, match=r"no checkpoint '100'.*last, step-000000090, step-"):
        run.checkpoint("100")


def test_a_damaged_config_is_a_usage_error(tmp_path: Path) -> None:
    run = RunDirectory.start(tmp_path, config=CONFIG)
    for text in ("a: [", "just text"):
        run.config_file.write_text(text)
        with pytest.raises(UsageError, match=r"config\.yaml"):
            run.config()
