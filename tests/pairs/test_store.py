"""A store is the same bytes however it was made, and refuses what does not belong to it."""

import json
import threading

import numpy as np
import pytest

from flowexp.data import pair_store
from flowexp.data.pair_store import PairManifest, PairStore, join_stores
from flowexp.errors import UsageError
from flowexp.pairs import FromData, FromNoise, verify, write_store
from flowexp.paths import Gaussian, StudentT
from flowexp.pipeline import FlowexpLatents, Processes
from tests.pairs.gaussian import SHAPE, content, data, manifest, teacher, written


class StoppedError(Exception):
    """Stands for a kill."""


class Together(Processes):
    """Two processes of a test as threads; what is exchanged goes through memory."""

    def __init__(self, rank, barrier, board):
        super().__init__(rank=rank, world_size=2)
        self._barrier, self._board = barrier, board

    def barrier(self):
        self._barrier.wait(timeout=60)

    def gather(self, item):
        self._board[self.rank] = item
        self._barrier.wait(timeout=60)
        return [self._board[0], self._board[1]] if self.is_first else None


def test_a_stopped_job_continues_to_the_same_bytes(tmp_path):
    whole = written(tmp_path / "whole")
    maker, of = FromNoise(), teacher()
    made = []

    def until(count):
        def make(members):
            if len(made) == count:
                raise StoppedError
            made.append(members)
            return maker.make(of, members)

        return make

    arguments = {"manifest": manifest(maker, of), "config": {"sampler": {"steps": 3}, "run": "x"}}
    for count in (0, 2):
        with pytest.raises(StoppedError):
            write_store(tmp_path / "parts", make=until(count), **arguments)
        (tmp_path / "parts" / ".shard_000002.123-ab.npz").write_bytes(b"half")
        with pytest.raises(UsageError, match="is not finished"):
            PairStore.open(tmp_path / "parts")
    write_store(tmp_path / "parts", make=until(99), **arguments)
    assert len(made) == 4
    a, b = content(tmp_path / "whole"), content(tmp_path / "parts")
    assert a.pop("config.yaml") != b.pop("config.yaml")
    assert a == b
    assert len(whole) == 20


def test_two_processes_make_the_store_of_one(tmp_path):
    written(tmp_path / "one")
    barrier, board, failures = threading.Barrier(2), {}, []

    def run(rank):
        maker, of = FromNoise(), teacher()
        try:
            write_store(
                tmp_path / "two",
                manifest=manifest(maker, of),
                config={"sampler": {"steps": 3}, "run": "made"},
                make=lambda members: maker.make(of, members),
                processes=Together(rank, barrier, board),
            )
        except Exception as error:
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert all(len(part) == 2 for part in board.values())


def test_more_pairs_continue_a_finished_store(tmp_path):
    written(tmp_path / "grown", ranges=((0, 9),))
    written(tmp_path / "grown", ranges=((0, 19),))
    written(tmp_path / "whole")
    assert content(tmp_path / "grown") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"guidance": "ClassifierFree(scale=2.0)"}, "guidance"),
        ({"teacher": {"run": "made", "sha256": "1"}}, "teacher.sha256"),
        ({"config": {"sampler": {"steps": 4}, "run": "made"}}, "sampler.steps: 3 -> 4"),
        ({"shard_size": 5}, "shard_size"),
        ({"ranges": ((5, 24),)}, "0-19"),
        ({"ranges": ((0, 9),)}, "0-19"),
    ],
)
def test_pairs_of_another_kind_do_not_enter(tmp_path, changes, word):
    written(tmp_path / "store")
    before = content(tmp_path / "store")
    with pytest.raises(UsageError, match=word):
        written(tmp_path / "store", **changes)
    assert content(tmp_path / "store") == before


def test_a_store_is_not_continued_with_other_data(tmp_path):
    def of(data):
        named = {"run": "made", "checkpoint": "last", "sha256": "0", "weights": "raw"}
        return {**named, **({} if data is None else {"data": data})}

    written(tmp_path / "old", teacher=of(None))
    written(tmp_path / "old", teacher=of("aaa"))
    with pytest.raises(UsageError, match=r"teacher\.data: aaa -> bbb"):
        written(tmp_path / "old", teacher=of("bbb"))


def test_a_store_of_an_earlier_version_is_continued(tmp_path):
    """Classes may have moved and may have options that leave them as they were."""
    latents, dpm = "latents.FlowexpLatents", {"_target_": "flowexp.samplers.DPM2", "steps": 3}
    old = {"sampler": dpm, "latents": {"_target_": f"flowexp.evaluation.{latents}"}}
    new = {"sampler": {**dpm, "r": 0.5}, "latents": {"_target_": f"flowexp.pipeline.{latents}"}}
    written(tmp_path / "store", config=old, sampler="DPM2(steps=3)")
    written(tmp_path / "store", config=new, sampler="DPM2(steps=3, r=0.5)")
    with pytest.raises(UsageError, match=r"sampler\.r: .* -> 0\.4"):
        written(tmp_path / "store", config={**new, "sampler": {**dpm, "r": 0.4}})


def test_a_run_may_have_moved(tmp_path):
    written(tmp_path / "store")
    moved = {"run": "elsewhere", "checkpoint": "last", "sha256": "0", "weights": "raw"}
    written(tmp_path / "store", teacher=moved)


def test_what_is_read_is_what_was_made(tmp_path):
    arrays = written(tmp_path / "s").arrays(Gaussian())
    columns = FromNoise().make(teacher(), np.arange(20))
    assert np.array_equal(arrays.images, columns["images"])
    assert np.array_equal(arrays.labels, columns["labels"])
    e = FlowexpLatents().draw(range(20), shape=SHAPE, source=Gaussian()).e
    assert np.array_equal(arrays.partners.take(np.arange(20)), e.numpy())
    assert arrays.num_classes == 2


def test_kept_noise_and_floats_are_read_back(tmp_path):
    maker = FromNoise(images="float32", noise="arrays")
    arrays = written(tmp_path / "s", maker=maker).arrays(StudentT(4.0))
    columns = maker.make(teacher(), np.arange(20))
    # Batches are cut at the shards, which changes the rounding of an adaptive solver's sums.
    assert np.abs(arrays.images - columns["images"]).max() < 1e-5
    assert arrays.images.dtype == np.float32
    assert np.array_equal(arrays.partners.take(np.array([7])), columns["noise"][[7]])


def test_large_stores_are_mapped_and_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path / "cache"))
    store = written(tmp_path / "s")
    whole = store.arrays(Gaussian())
    monkeypatch.setattr(pair_store, "_IN_MEMORY_BYTES", 10)
    mapped = store.arrays(Gaussian())
    assert isinstance(mapped.images, np.memmap)
    assert np.array_equal(mapped.images, whole.images)
    assert np.array_equal(mapped.labels, whole.labels)
    assert mapped.fingerprint == whole.fingerprint


def test_seeds_of_another_law_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"StudentT\(D=4.0\)"):
        written(tmp_path / "s").arrays(StudentT(4.0))


def test_a_damaged_shard_is_noticed_and_mended(tmp_path):
    written(tmp_path / "s")
    before = content(tmp_path / "s")
    file = tmp_path / "s" / "shard_000001.npz"
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 2] ^= 1
    file.write_bytes(bytes(changed))
    with pytest.raises(UsageError, match=r"shard_000001.npz was changed"):
        PairStore.open(tmp_path / "s").arrays(Gaussian())
    written(tmp_path / "s")
    assert content(tmp_path / "s") == before
    file.unlink()
    with pytest.raises(UsageError, match="3 of 4 shards"):
        PairStore.open(tmp_path / "s")


def test_shards_in_each_others_place_are_noticed(tmp_path):
    store = written(tmp_path / "s")
    swapped = dict(store.digests)
    names = ("shard_000000.npz", "shard_000001.npz")
    contents = [(tmp_path / "s" / name).read_bytes() for name in names]
    for name, other, text in zip(names, reversed(names), reversed(contents), strict=True):
        (tmp_path / "s" / name).write_bytes(text)
        swapped[name] = store.digests[other]
    (tmp_path / "s" / "digests.json").write_text(json.dumps(swapped))
    with pytest.raises(UsageError, match="not those of the manifest"):
        PairStore.open(tmp_path / "s").arrays(Gaussian())


def test_folders_that_are_no_stores(tmp_path):
    with pytest.raises(UsageError, match=r"no manifest.json"):
        PairStore.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "flowexp-pairs-0"}')
    with pytest.raises(UsageError, match="flowexp-pairs-0"):
        PairStore.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "flowexp-pairs-1", "seed": 1}')
    with pytest.raises(UsageError, match="teacher"):
        PairStore.open(tmp_path)


def test_a_manifest_survives_json():
    first = manifest(FromNoise(), teacher(), ranges=((0, 4), (10, 12)))
    again = PairManifest.from_dict(json.loads(json.dumps(first.to_dict())))
    assert again == first
    assert again.members().tolist() == [0, 1, 2, 3, 4, 10, 11, 12]
    assert [len(members) for members in again.shards().values()] == [6, 2]


def test_stores_join_and_a_store_named_twice_counts_twice(tmp_path):
    noise = written(tmp_path / "noise")
    of = teacher(data=data())
    real = written(tmp_path / "real", maker=FromData(), of=of, ranges=((0, 7),))
    joined = join_stores([noise, real, real], Gaussian())
    assert len(joined) == 36
    assert np.array_equal(joined.images[20:28], data().images[:8])
    assert np.array_equal(joined.images[20:28], joined.images[28:])
    taken = joined.partners.take(np.array([0, 20, 28]))
    assert np.array_equal(taken[1], taken[2])
    assert np.array_equal(taken[0], noise.arrays(Gaussian()).partners.take(np.array([0]))[0])


def test_stores_that_do_not_belong_together(tmp_path):
    one = written(tmp_path / "one", ranges=((0, 5),))
    overlapping = written(tmp_path / "two", ranges=((5, 9),))
    disjoint = written(tmp_path / "three", ranges=((6, 9),))
    guided = written(tmp_path / "four", ranges=((20, 29),), guidance="ClassifierFree(scale=2)")
    other = {"run": "made", "checkpoint": "last", "sha256": "1", "weights": "raw"}
    foreign = written(tmp_path / "five", ranges=((30, 33),), teacher=other)
    assert len(join_stores([one, disjoint], Gaussian())) == 10
    for wrong, word in ((overlapping, "repeats 1 pairs"), (guided, "guidance"), (foreign, "teach")):
        with pytest.raises(UsageError, match=word):
            join_stores([one, wrong], Gaussian())


@pytest.mark.parametrize("maker", [FromNoise(), FromNoise(images="float32"), FromData()])
def test_a_store_is_compared_with_its_teacher(tmp_path, maker):
    of = teacher(data=data())
    store = written(tmp_path / "s", maker=maker, of=of)
    verify(store, maker=maker, teacher=of)
    with pytest.raises(UsageError, match="does not match made"):
        verify(store, maker=maker, teacher=teacher(spread=0.3, data=data()))


def test_wrong_labels_are_noticed(tmp_path):
    store = written(tmp_path / "s")
    of = teacher(data=data(), latents=FlowexpLatents())
    with pytest.raises(UsageError, match="labels"):
        verify(store, maker=FromNoise(labels_of_data=True), teacher=of, count=20)


def test_two_jobs_do_not_write_one_store(tmp_path):
    maker, of = FromNoise(), teacher()
    arguments = {
        "manifest": manifest(maker, of),
        "config": {"sampler": {"steps": 3}, "run": "made"},
    }

    def make(members):
        with pytest.raises(UsageError, match="another process is making pairs") as refused:
            write_store(tmp_path / "store", make=make, **arguments)
        assert refused.value.key == "dirs.run"
        return maker.make(of, members)

    write_store(tmp_path / "store", make=make, **arguments)
    write_store(tmp_path / "store", make=make, **arguments)
    written(tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")
