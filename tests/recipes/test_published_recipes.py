"""Published recipes hold their sources' values: every hyperparameter, and nothing unlisted.

The values stand in the yaml files beside this module, one file per family of methods::

    adam:                         # a name without "/" is a block that others take
      - source: torch's defaults  # where the values below are from
        values:
          optimizer: {_target_: torch.optim.Adam, eps: 1.0e-8}
    cifar10/rectified_flow:       # a name with "/" is that file in conf/experiment
      - like: [adam, ours]        # rows of these first; later rows replace earlier ones
      - source: gnobitab/RectifiedFlow, configs/rectified_flow/cifar10_rf_gaussian_ddpmpp.py
        values:
          optimizer.lr: 2.0e-4    # a key of the composed config, nested or dotted

A row of a part's ``_target_`` begins that part anew: earlier rows below it no longer count.
``source`` names a file (and line) of the authors' repository, a table or an appendix; ``recalled``
if nobody has read it there, ``ours: WHY`` where the value is our own, ``not stated: WHY`` where the
source is silent. The files are read together, so blocks may be taken from other files; a name
stands in one file only.
"""

import copy
import math
import random
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
import yaml

from flowexp.config import conf_dir
from flowexp.config.later_options import without_later_options
from flowexp.config.loader import RunAwareLoader, search_path
from flowexp.config.resolved import resolve
from flowexp.tables.table_files import names, read_table

# our own recipes, which no paper states
OURS = {"digits", "fashion10k", "fashion_mnist", "toy2d"}
RECIPES = sorted(
    file.relative_to(conf_dir() / "experiment").with_suffix("").as_posix()
    for file in (conf_dir() / "experiment").rglob("*.yaml")
    if file.parent.name not in OURS
)
# keys, and all below them, that change no trained weight and no sample beyond rounding
NOT_HYPERPARAMETERS = {
    "hydra": "Hydra's own",
    "dirs": "where files lie",
    "launcher": "where jobs run",
    "logger": "what is written about the training",
    "callbacks": "what is shown of the training",
    "metric": "what is measured belongs to a table's protocol",
    "task": "no value of its own: the labels of samples follow network.label_dim",
    "seed": "the figures hold for any seed",
    "teacher": "the user's run",
    "init": "the user's run",
    "pairs": "the user's store",
    "coupling.run": "the user's run, ${init}",
    "coupling.pairs": "the user's store, ${pairs}",
    "objective.teacher.run": "the user's run, ${teacher}",
    "objective.driver.teacher.run": "the user's run, ${teacher}",
    "objective.target.teacher.run": "the user's run, ${teacher}",
    "objective.parts.two_step.teacher.run": "the user's run, ${teacher}",
    "sampler.time_grid.run": "the user's run, ${init}",
    "autoencoder.folder": "where the weights lie",
    "autoencoder.weights": "the user's run",
    "autoencoder.batch_size": "speed",
    "dataset.name": "how reports call it",
    "dataset.archive": "where the data lie",
    "dataset.test_archive": "where the data lie",
    "dataset.root": "where the data lie",
    "dataset.download": "how the data come",
    "dataset.in_memory": "how the data are read",
    "dataset.notice": "what reports say of the data",
    "optimizer._partial_": "how it is built",
    "trainer.accelerator": "hardware",
    "trainer.devices": "hardware",
    "trainer.num_nodes": "hardware",
    "trainer.strategy": "hardware",
    "trainer.threads": "hardware",
    "trainer.compile": "speed",
    "trainer.channels_last": "speed",
    "trainer.log_every": "what is written about the training",
    "trainer.checkpoint_kimg": "how much a kill can cost",
    "trainer.keep_checkpoints": "how much a kill can cost",
    "trainer.snapshot_kimg": "which weights may be selected belongs to a table's protocol",
}


def leaves(node: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Keys and values of a tree; lists and empty mappings are values."""
    if isinstance(node, Mapping) and node:
        for name, child in node.items():
            yield from leaves(child, f"{key}.{name}" if key else str(name))
    else:
        yield key, node


@cache
def entries() -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for file in sorted(Path(__file__).parent.glob("*.yaml")):
        for name, entry in yaml.safe_load(file.read_text()).items():
            assert name not in found, f"{file.name}: {name} stands in two files"
            found[name] = entry
    return found


@cache
def stated(name: str) -> dict[str, tuple[object, str]]:
    """Value and source of each key that the data files state for a recipe or block."""
    rows: dict[str, tuple[object, str]] = {}
    for part in entries()[name]:
        if "like" in part:
            assert list(part) == ["like"], f"{name}: {part}"
            for other in part["like"]:
                _replace(rows, stated(other))
        else:
            assert set(part) == {"source", "values"}, f"{name}: {part}"
            assert len(part["source"]) > 4, f"{name}: {part['source']!r} is no source"
            _replace(rows, {key: (value, part["source"]) for key, value in leaves(part["values"])})
    return rows


def _replace(rows: dict[str, tuple[object, str]], new: Mapping[str, tuple[object, str]]) -> None:
    anew = tuple(f"{key.removesuffix('._target_')}." for key in new if key.endswith("_target_"))
    whole = tuple(f"{key}." for key in new)
    for key in list(rows):
        below = key.startswith((*anew, *whole))
        above = any(other.startswith(f"{key}.") for other in new)
        if below or above:
            del rows[key]
    rows.update(new)


@cache
def loader() -> RunAwareLoader:
    return RunAwareLoader(search_path())


@cache
def composed(name: str) -> Mapping[str, object]:
    """The hyperparameters of a recipe as ``flowexp train`` would use them."""
    given = [f"{key}=given" for key in ("pairs", "init", "teacher")]
    return resolve(loader().compose("train", [f"experiment={name}", *given])).values


def differences(config: Mapping[str, object], rows: Mapping[str, tuple[object, str]]) -> list[str]:
    """What is not as the rows say, leaves without a row and rows without a leaf among it."""
    found = {key: value for key, value in leaves(config) if not _left_out(key)}
    stored_before = dict(leaves(without_later_options(config)))
    told = []
    for key in sorted({*found, *rows}):
        if key not in rows and key not in stored_before:
            continue  # an option that a part got later, off
        if key not in rows:
            told.append(f"{key}={found[key]!r} stands in no data file")
        elif key not in found:
            if rows[key][0] is None:
                continue  # null in a row is a part that is not there
            told.append(f"{key}: a row says {rows[key][0]!r}, the recipe has no such key")
        elif not _same(found[key], rows[key][0]):
            told.append(f"{key}={found[key]!r}; {rows[key][0]!r} in {rows[key][1]}")
    return told


def _left_out(key: str) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in NOT_HYPERPARAMETERS)


def _same(value: object, other: object) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


@pytest.mark.parametrize("name", RECIPES)
def test_every_hyperparameter_is_what_its_source_says(name):
    assert name in entries(), f"{name} has no data: add it to a file in tests/recipes"
    assert "\n".join(differences(composed(name), stated(name))) == ""


def test_pairs_are_stored_as_the_authors_stored_them():
    """Floats, as Liu's arrays and InstaFlow's latents are; only RF++ has 8-bit images."""
    found = {}
    for table in names("table"):
        jobs = read_table(table).jobs
        for job in jobs.values():
            if job.verb == "pairs":
                (run,) = job.parents["run"]
                teacher = jobs[run].experiment
                floats = "start.images=float32" in job.overrides
                found.setdefault((table.split("/")[0], teacher), set()).add(floats)
    for (paper, teacher), floats in found.items():
        of_liu = teacher in ("cifar10/rectified_flow", "cifar10/reflow")
        assert floats == {paper != "rfpp" or of_liu}, (paper, teacher)
    assert len(found) > 8


def test_the_data_files_name_recipes_that_exist():
    assert {name for name in entries() if "/" in name} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_changed_hyperparameter_is_found(name):
    rows = stated(name)
    rng = random.Random(name)
    # not those of groups that change nothing as they are
    groups = without_later_options(composed(name)).keys()
    there = [key for key, _ in leaves(composed(name)) if key.partition(".")[0] in groups]
    keys = [key for key in there if not _left_out(key)]
    for key in rng.sample(keys, 20):
        assert any(told.startswith(f"{key}=") for told in differences(_changed(name, key), rows))


def _changed(name: str, key: str) -> Mapping[str, object]:
    config = copy.deepcopy(composed(name))
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    old = node[last]
    if isinstance(old, bool):
        node[last] = not old
    elif isinstance(old, int | float):
        node[last] = old * 1.001 if 0 < abs(old) < math.inf else 1
    else:
        node[last] = f"not {old}"
    return config
