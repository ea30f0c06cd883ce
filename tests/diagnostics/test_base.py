"""Work that is shared by processes comes back once and in order."""

import pytest
import torch

from flowexp.diagnostics import NetworkEvaluations, Straightness
from flowexp.paths import Linear, Path
from flowexp.pipeline import Processes, in_turn
from tests.diagnostics.fields import measure, rank, setting
from tests.samplers.closed_forms import MixtureModel


def bent() -> MixtureModel:
    return MixtureModel(Path(Linear()), [0.4, 0.6], [[1.5, 0.0], [-0.5, 1.0]], [[0.2], [0.1]])


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 5, 12])
def test_in_turn_undoes_share(world_size, count):
    items = list(range(count))
    shares = [Processes(rank=r, world_size=world_size).share(items) for r in range(world_size)]
    assert in_turn(shares) == items


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_several_processes_measure_what_one_measures(world_size):
    """11 samples in batches of 3: bit for bit, each exactly once, also with idle processes."""
    metric, model, mail = Straightness(steps=6), bent(), []
    alone = measure(metric, model, seeds=range(11))
    for index in reversed(range(world_size)):
        processes = rank(index, world_size, mail)
        part = setting(model, seeds=range(11), processes=processes)
        records = metric.measure(model, setting=part)
        assert (records == ()) is (index > 0)
    assert records == (alone,)
    assert sum(len(batch["value"]) for _, batches in mail for batch in batches) == 11


def test_a_value_per_item_is_float64_and_in_order():
    part = setting(bent(), batch_size=4)
    found = part.per_item(list(range(10)), lambda items: {"twice": 2 * torch.tensor(items)})
    assert found["twice"].tolist() == [2.0 * i for i in range(10)]
    assert found["twice"].dtype == torch.float64


def test_the_error_of_the_mean():
    record = measure(Straightness(steps=6), bent(), seeds=range(5))
    single = [measure(Straightness(steps=6), bent(), seeds=[i]) for i in range(5)]
    values = torch.tensor([r.value for r in single], dtype=torch.float64)
    assert record.value == pytest.approx(float(values.mean()), rel=1e-12)
    assert record.extra["standard_error"] == pytest.approx(float(values.std()) / 5**0.5)
    assert "standard_error" not in single[0].extra


def test_the_cost_of_a_sample():
    counts = torch.tensor([10, 20, 60], dtype=torch.int64)
    record = measure(NetworkEvaluations(), bent(), nfe=counts)
    assert record.value == 30.0
    assert (record.extra["minimum"], record.extra["maximum"]) == (10.0, 60.0)
    assert record.title == "NFE[Euler] 3 on points"
    assert NetworkEvaluations().measure(bent(), setting=setting(bent())) == ()
