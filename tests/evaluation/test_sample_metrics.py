"""Metrics that compare each sample with what it should be."""

import pytest
import torch

from flowexp.data import quantize, to_unit_range
from flowexp.errors import UsageError
from flowexp.evaluation import score
from flowexp.metrics import MetricRecord, Protocol
from flowexp.tasks import Generation, Task
from tests.evaluation.tiny import SHAPE, metric, pipeline, reference


class Difference:
    """Mean absolute difference in levels; remembers how many samples it saw."""

    name = "difference"
    minimum_samples = 1
    paired = True
    zero = "the target"

    def check(self):
        return

    def prepare(self, reference, **options):
        return

    def floor(self, heldout):
        raise AssertionError("a paired metric has no floor: real images have no targets")

    def accumulator(self):
        return Differences()


class Differences:
    def __init__(self):
        self.total, self.count = torch.zeros(()), torch.zeros(())

    def update(self, images, targets):
        assert images.dtype == targets.dtype == torch.uint8
        self.total = self.total + (images.float() - targets.float()).abs().mean((1, 2, 3)).sum()
        self.count = self.count + len(images)

    def merge(self, other):
        self.total, self.count = self.total + other.total, self.count + other.count

    def state(self):
        return {"total": self.total, "count": self.count}

    def load(self, state):
        self.total, self.count = state["total"], state["count"]

    def compute(self):
        protocol = Protocol(
            metric="difference", extractor="levels", weights_sha256=None, resize="none",
            quantization="uint8", reference="targets", reference_fingerprint="",
            reference_split=None, n_ref=None, n_gen=int(self.count),
        )  # fmt: skip
        value = float(self.total / self.count)
        return (MetricRecord(name="difference", value=value, protocol=protocol),)


def levels(seeds) -> torch.Tensor:
    return torch.stack([torch.full(SHAPE, seed, dtype=torch.uint8) for seed in seeds])


class Constant(Task):
    """The target of a seed is a flat picture of that level."""

    def __init__(self, *, floating: bool) -> None:
        self.floating = floating

    def conditions(self, seeds, *, labels=None, device="cpu"):
        return {}

    def targets(self, seeds, *, device="cpu"):
        picture = levels(seeds).to(device)
        return to_unit_range(picture) if self.floating else picture


def evaluate(task, metrics, **changes):
    parts = {"reference": reference(), "seeds": range(11)}
    return score(pipeline(task=task, batch_size=4), metrics=metrics, **(parts | changes))


@pytest.mark.parametrize("floating", [True, False])
def test_each_sample_is_compared_with_its_own_target(floating):
    task = Constant(floating=floating)
    result = evaluate(task, {"d": Difference(), "fd": metric()}, heldout=reference(32, seed=1))
    batches = pipeline(task=task, batch_size=11).batches(range(11))
    (batch,) = batches
    by_hand = (quantize(batch.x).float() - levels(range(11)).float()).abs().mean()
    assert result.records[0].value == pytest.approx(float(by_hand), rel=1e-5)
    assert result.records[0].protocol.n_gen == 11
    assert "floor" in result.records[1].extra


@pytest.mark.parametrize("task", [None, Generation()])
def test_a_task_without_targets_is_refused_before_sampling(task):
    def forbidden(*_):
        raise AssertionError("sampled")

    with pytest.raises(UsageError, match="d compares each sample with a target"):
        evaluate(task, {"d": Difference()}, on_batch=forbidden)


def test_too_few_samples_are_refused_before_sampling():
    def forbidden(*_):
        raise AssertionError("sampled")

    needy = metric()
    needy.minimum_samples = 12
    with pytest.raises(UsageError, match="fd needs at least 12 samples, but there are 11 seeds"):
        evaluate(Generation(), {"fd": needy}, on_batch=forbidden)


def test_generation_has_no_targets():
    (batch,) = pipeline(task=Generation()).batches([3])
    assert batch.targets is None
