"""Groups that configs have not always had: stored ones mean what they meant, and are the same."""

import json

import pytest
import yaml

from flowexp.config.check import check
from flowexp.config.differences import differing
from flowexp.config.later_options import LATER_GROUPS, option_file, without_later_options
from flowexp.config.overrides import in_full
from flowexp.config.stored import choices_of
from flowexp.data.fashion import Fashion10k
from flowexp.runs.assemble import build
from flowexp.tables.jobs import identity_of


@pytest.fixture
def now():
    return check("train", ["dataset=digits"]).sound()


@pytest.fixture
def before(now):
    return {key: value for key, value in now.items() if key not in LATER_GROUPS}


@pytest.fixture
def old_run(before, tmp_path):
    """The folder of a run that was stored before there were later groups."""
    folder = tmp_path / "old"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    (folder / "config.yaml").write_text(yaml.safe_dump(before))
    (folder / "manifest.json").write_text(json.dumps({"choices": {"dataset": "digits"}}))
    return str(folder)


@pytest.mark.parametrize("group", LATER_GROUPS)
def test_the_option_that_changes_nothing_exists(group) -> None:
    assert option_file(group).is_file()


def test_identities_do_not_change(now, before) -> None:
    assert without_later_options(now) == without_later_options(before)
    assert identity_of("train", now) == identity_of("train", before)
    assert differing(before, now) == {}


@pytest.mark.parametrize(
    ("group", "node"),
    [
        ("autoencoder", {"_target_": "flowexp.runs.autoencoder_folder.FolderAutoencoder"}),
        ("order", {"_target_": "flowexp.data.orders.ClassSequences", "length": 5}),
    ],
)
def test_another_option_is_another_job(group, node, now, before) -> None:
    other = {**now, group: node}
    assert identity_of("train", other) != identity_of("train", now)
    assert set(differing(before, other)) == {f"{group}.{key}" for key in node}


def test_a_stored_config_without_the_group_builds_the_same(now, before) -> None:
    old, new = (build(config, device="meta") for config in (before, now))
    assert old.pipeline.shape == new.pipeline.shape == (1, 8, 8)
    assert not old.autoencoder.encodes
    assert old.flow_data is old.dataset


@pytest.mark.parametrize("verb", ["eval", "sample", "pairs"])
def test_verbs_take_the_group_from_an_old_run(verb, old_run) -> None:
    found = check(verb, [f"run={old_run}"])
    assert found.problems == []
    assert found.config["autoencoder"]["channels"] == 1
    assert choices_of(old_run)["autoencoder"] == "none"


def test_a_run_from_an_old_one_follows_its_data(old_run) -> None:
    overrides = [f"parent={old_run}", "init=null", "dataset=fashion10k", "network=unet"]
    found = check("train", overrides)
    assert found.problems == []
    size = found.config["network"]["img_resolution"]
    assert size == found.config["autoencoder"]["resolution"] == Fashion10k().resolution


def test_a_folder_is_named_in_place_of_an_option(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    full = ["autoencoder=folder", "autoencoder.folder=outputs/a"]
    assert in_full("train", ["autoencoder=outputs/a"]) == full
    assert in_full("eval", ["autoencoder=here"])[1] == "autoencoder.folder=here"
    strange = in_full("train", ["autoencoder=a/b=c d"])[1]
    assert strange == "autoencoder.folder='a/b=c d'"
    for same in (
        "autoencoder=none",
        "autoencoder=nowhere",
        "autoencoder.folder=a/b",
        "dataset=a/b",
    ):
        assert in_full("train", [same]) == [same]
