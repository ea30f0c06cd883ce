"""Couplings of a batch that several processes share, and what a coupling measures of its batch."""

import json
import sys
from pathlib import Path

import pytest
import torch

from flowexp.config.check import check_job
from flowexp.couplings import (
    EuclideanCost,
    MinibatchOT,
    NetworkSimplex,
    NoCorrection,
    SemidiscreteOT,
    ShortestPaths,
    Weighted,
)
from flowexp.errors import UsageError
from flowexp.processes import Processes
from flowexp.runs import read_checkpoint
from flowexp.seeding import generator
from flowexp.training.coupled import Share, TrainingItems, couple
from tests.training.tiny import Tiles, tiny_model, tiny_settings, train
from tests.two_processes import in_two_processes


def weighted(**changes):
    parts = {"cost": EuclideanCost(), "tilt_correction": NoCorrection()}
    return Weighted(**(parts | {"epsilon": 1.0} | changes))


def batch():
    rng = generator(0, "batch")
    x, e = torch.randn(8, 3, generator=rng), torch.randn(8, 3, generator=rng)
    return x, e, {"labels": torch.arange(8), "absent": None}


def coupled(coupling, rank, world_size):
    x, e, conditions = batch()
    share = Share(rank, world_size, len(x) // world_size)
    own = {n: None if c is None else c[share.rows] for n, c in conditions.items()}
    return couple(
        coupling,
        x[share.rows],
        e,
        own,
        partner=None,
        share=share,
        images_seen=0,
        rng_of=lambda number: generator(0, "coupling", number),
    )


def test_alone_a_share_is_its_own_batch():
    parts = [coupled(MinibatchOT(), rank, 2) for rank in range(2)]
    x, e, conditions = batch()
    for rank, part in enumerate(parts):
        rows = slice(4 * rank, 4 * rank + 4)
        alone = MinibatchOT().pair(
            x[rows], e[rows], {"labels": conditions["labels"][rows]}, rng=generator(0, "c")
        )
        assert torch.equal(part.x, alone.x)
        assert torch.equal(part.e, alone.e)


def share_of_two() -> None:
    with Processes.start() as processes:
        for coupling in (
            MinibatchOT(across_devices=True),
            MinibatchOT(across_devices=True, replacement=True),
            weighted(),
        ):
            part = coupled(coupling, processes.rank, 2)
            whole = coupled(coupling, 0, 1)
            rows = slice(4 * processes.rank, 4 * processes.rank + 4)
            assert torch.equal(part.x, whole.x[rows])
            assert torch.equal(part.e, whole.e[rows])
            assert torch.equal(part.conditions["labels"], whole.conditions["labels"][rows])
            assert part.conditions["absent"] is None
            if whole.weight is not None:
                assert torch.equal(part.weight, whole.weight[rows])


@pytest.mark.slow
def test_two_processes_find_the_pairs_of_one():
    in_two_processes(share_of_two)


def train_shared(folder: Path, coupling) -> None:
    settings = tiny_settings(devices=2, strategy="ddp", micro_batch=5)
    train(folder, model=tiny_model(dropout=0.0), settings=settings, coupling=coupling)


@pytest.mark.slow
def test_two_processes_train_as_one_on_pairs_of_the_whole_batch(tmp_path: Path) -> None:
    coupling = MinibatchOT(across_devices=True)
    in_two_processes(train_shared, tmp_path / "two", coupling)
    train(tmp_path / "one", model=tiny_model(dropout=0.0), coupling=coupling)
    files = [tmp_path / name / "checkpoints" / "last.ckpt" for name in ("one", "two")]
    one, two = (read_checkpoint(file)["ema"]["main"] for file in files)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5)


def test_what_a_coupling_measures_is_logged_once_a_step(tmp_path: Path) -> None:
    for micro_batch in (None, 5):
        folder = tmp_path / str(micro_batch)
        settings = tiny_settings(micro_batch=micro_batch, log_every=1)
        train(folder, model=tiny_model(dropout=0.0), settings=settings, coupling=weighted())
    whole, parts = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("None", "5")
    )
    for a, b in zip(whole, parts, strict=True):
        for name in ("coupling_ess", "coupling_epsilon", "data_norm", "data_norm_weighted"):
            assert a[f"train/{name}"] == pytest.approx(b[f"train/{name}"], rel=1e-12)
        assert 1 / 16 <= a["train/coupling_ess"] <= 1.0


def test_the_scope_of_a_coupling_is_named():
    assert MinibatchOT().scope == "the share of one device"
    assert weighted().scope == MinibatchOT(across_devices=True).scope == "the batch of all devices"


def test_a_potential_is_learned_before_the_training_and_used_again(tmp_path: Path) -> None:
    """Tiles are mirrored at random, so that their mirror images are items too."""
    couplings = [
        SemidiscreteOT(directory=str(tmp_path / "potentials"), draws_per_item=20.0)
        for _ in range(2)
    ]
    for number, coupling in enumerate(couplings):
        train(tmp_path / str(number), model=tiny_model(dropout=0.0), coupling=coupling)
    one, two = (
        read_checkpoint(tmp_path / n / "checkpoints" / "last.ckpt")["ema"]["main"] for n in "01"
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    (folder,) = (tmp_path / "potentials").iterdir()
    record = json.loads((folder / "potential.json").read_text())
    assert record["identity"]["items"] == 128
    assert record["identity"]["data"].endswith("+mirrored")
    assert couplings[1].record() == {"within": "the whole data set", "potential": record}


def test_mirror_images_follow_the_items() -> None:
    arrays = Tiles().train()
    items = TrainingItems(arrays, mirrored=True)
    plain = TrainingItems(arrays, mirrored=False)
    rows = torch.tensor([3, 64 + 3, 127])
    expected = plain.data(torch.tensor([3, 3, 63]))
    expected[1:] = expected[1:].flip(-1)
    assert torch.equal(items.data(rows), expected)
    assert torch.equal(items.labels[rows], torch.from_numpy(arrays.labels[[3, 3, 63]]))
    assert (len(items), len(plain)) == (128, 64)
    assert items.fingerprint != plain.fingerprint


@pytest.mark.parametrize("name", ["minibatch_ot", "entropic_ot", "semidiscrete_ot"])
def test_a_plan_over_all_classes_is_warned_of_where_classes_are_given(name: str) -> None:
    chosen = ["experiment=fashion10k/rectified_flow", f"coupling={name}"]

    def remarks(*overrides: str) -> list[str]:
        job = check_job("train", [*chosen, *overrides])
        assert job.problems == []
        return [remark for remark in job.remarks if remark.startswith("coupling")]

    (remark,) = remarks()
    assert "coupling.per_class=true" in remark
    assert remarks("coupling.per_class=true") == []
    assert remarks("network.label_dim=0") == []
    impossible = [*chosen, "network.label_dim=0", "coupling.per_class=true"]
    (problem,) = check_job("train", impossible).problems
    assert problem.key == "coupling.per_class"


def test_images_of_its_own_are_not_augmented() -> None:
    overrides = ["coupling=semidiscrete_ot", "augmentation=edm", "network.augment_dim=9"]
    (problem,) = check_job("train", overrides).problems
    assert problem.key == "augmentation"
    assert "does not use" in str(problem)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_pot_finds_the_plan_that_scipy_finds(n: int) -> None:
    pytest.importorskip("ot")
    cost = torch.rand(n, n, generator=generator(n, "cost"), dtype=torch.float64)
    pot, scipy = NetworkSimplex().permutation(cost), ShortestPaths().permutation(cost)
    assert torch.equal(pot, scipy)


def test_without_pot_its_solver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(UsageError, match="pip install 'flowexp"):
        NetworkSimplex()
