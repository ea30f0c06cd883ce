"""Numbers of models that have diverged: nan with its reason, everywhere, beside the others."""

import json
import math

import numpy as np
import pytest
import torch

from flowexp.diagnostics import BitsPerDim, Curvature, FirstOrderDefect, SolverError, Straightness
from flowexp.errors import UsageError
from flowexp.evaluation import append_results, score, summarize
from flowexp.metrics import MetricRecord
from flowexp.metrics.protocol import least, mean
from flowexp.pairs import FromNoise
from flowexp.report.comparison import compare
from flowexp.report.run_record import read_run
from flowexp.samplers import DormandPrince
from flowexp.tables.claims import verdict
from flowexp.tables.render.forms import csv, latex, markdown
from tests.evaluation.tiny import heun, kernel_distance, metric, pipeline, reference, tiny_model
from tests.report.runs import make_run


def strict(content):
    def refused(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(content, parse_constant=refused)


def diverged(classes, **changes):
    """A pipeline whose samples of some classes are nan."""
    model = tiny_model()
    with torch.no_grad():
        model.network.label.weight[[c + 1 for c in classes]] = math.nan
    return pipeline(model=model, batch_size=16, **changes)


METRICS = {
    "fd_raw": metric,
    "kid": kernel_distance,
    "straightness": lambda: Straightness(steps=2),
    "curvature": lambda: Curvature(steps=2),
    "first_order": lambda: FirstOrderDefect(steps=2),
    "solver_error": SolverError,
}


@pytest.mark.parametrize("sampler", [heun(), DormandPrince()], ids=["fixed", "adaptive"])
@pytest.mark.parametrize("classes", [[0], [0, 1, 2]], ids=["some", "all"])
def test_a_diverged_model_has_numbers_that_say_why(classes, sampler, tmp_path):
    one = diverged(classes, sampler=sampler)
    metrics = {name: make() for name, make in METRICS.items()}
    result = score(one, metrics=metrics, seeds=range(40), reference=reference())
    drawn = one.task.conditions(range(40))["labels"]
    lost = int(sum((drawn == c).sum() for c in classes))
    assert [r.name for r in result.records][:2] == ["fd_raw", "kid_mean"]
    for record in result.records:
        assert math.isnan(record.value)
        assert record.reason.startswith(f"{lost} of 40 ")
        assert f"not a number: {lost} of 40" in str(result)
    file = append_results(tmp_path / "results.json", result)
    stored = strict(file.read_text(encoding="utf-8"))["evaluations"][0]["records"]
    again = [MetricRecord.from_dict({k: v for k, v in r.items() if k != "key"}) for r in stored]
    assert [r.reason for r in again] == [r.reason for r in result.records]


def test_bits_per_dim_without_an_end():
    data = reference(5)
    data = type(data).of(data.images, np.array([0, 1, 2, 1, 1]), num_classes=3, name="t/train")
    bits = BitsPerDim(training_images=True)
    (record,) = score(
        diverged([0]), metrics={"bits_per_dim": bits}, seeds=range(2), reference=data
    ).records
    assert record.reason == "1 of 5 values are not finite"


def test_finite_numbers_have_no_reason_and_are_stored_as_before():
    (record,) = score(
        pipeline(), metrics={"fd": metric()}, seeds=range(8), reference=reference()
    ).records
    assert record.reason is None
    assert "reason" not in record.to_dict()


def test_infinities_survive_and_old_files_are_read():
    (one,) = score(
        pipeline(), metrics={"fd": metric()}, seeds=range(8), reference=reference()
    ).records
    stored = {**one.to_dict(), "value": "inf", "extra": {"std": None, "floor": "-inf"}}
    again = MetricRecord.from_dict(stored)
    assert again.value == math.inf
    assert math.isnan(again.extra["std"])
    assert again.to_dict() == stored
    assert math.isnan(MetricRecord.from_dict({**stored, "value": None}).value)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_no_order_decides_what_the_least_is(place):
    values = [3.0, 1.0]
    values.insert(place, math.nan)
    assert math.isnan(least(values))
    assert math.isnan(mean(values))
    assert math.isnan(mean([math.inf, -math.inf]))
    assert least([math.inf, 2.0]) == 2.0


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_claim_with_an_arm_that_is_no_number_is_undecided(place, bad):
    arms = [[2.0, 2.2, 1.9], [3.0, 3.1, 2.8], [1.0, 1.1, 0.9]]
    assert verdict(arms, direction="lower").word == "holds"
    arms[place][1] = bad
    assert verdict(arms, direction="lower").word == "undecided"
    assert verdict(arms, direction="higher").word == "undecided"


def test_a_comparison_shows_the_reason(tmp_path):
    result = score(diverged([0, 1, 2]), metrics={"fd": metric()}, seeds=range(8),
                   reference=reference())  # fmt: skip
    runs = []
    for name in "ab":
        run = make_run(tmp_path / name)
        append_results(run / "results.json", result, directory="x")
        runs.append(read_run(run, name=name))
    assert math.isnan(summarize([result, result])[0].minimum)
    for form in (markdown, latex):
        text = form(compare(runs))
        assert "not finite" in text
        assert "8 of 8 samples are not finite" in text
    assert "nan" not in csv(compare(runs))


@pytest.mark.parametrize("images", ["uint8", "float32"])
def test_pairs_of_a_diverged_teacher_are_refused(images):
    with pytest.raises(UsageError, match=r"run: the teacher has diverged: \d of 4 results"):
        FromNoise(images=images).make(diverged([0, 1]), np.arange(4))
