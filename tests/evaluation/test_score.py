"""Scores: the number, its protocol, its record, alone and shared."""

import json
from pathlib import Path

import pytest
import torch

from flowexp.data import quantize
from flowexp.diagnostics import BitsPerDim, NetworkEvaluations, Straightness
from flowexp.errors import UsageError
from flowexp.evaluation import ScoreResult, append_results, score
from flowexp.guidance import ClassifierFree
from flowexp.metrics import MetricRecord
from flowexp.samplers import FlowMapSampler
from tests.evaluation.tiny import evaluate_together, metric, pipeline, reference, tiny_model
from tests.two_processes import in_two_processes


def evaluate(**changes) -> ScoreResult:
    parts = {
        "pipeline": pipeline(batch_size=8),
        "metrics": {"fd": metric()},
        "reference": reference(),
        "seeds": range(50),
    }
    return score(**(parts | changes))


def test_the_number_is_the_metric_of_the_quantised_samples() -> None:
    result = evaluate()
    batches = pipeline(batch_size=8).batches(range(50))
    by_hand = metric()
    by_hand.prepare(reference())
    accumulator = by_hand.accumulator()
    accumulator.update(torch.cat([quantize(batch.x) for batch in batches]))
    (expected,) = accumulator.compute()
    assert result.records[0].value == pytest.approx(expected.value, rel=1e-9)
    assert result.count == 50
    assert result.nfe in (5.0, 6.0)
    assert result.images_per_second == pytest.approx(50 / result.seconds)


def test_the_protocol_says_how() -> None:
    result = evaluate(facts={"ema": "main", "precision": "32-true", "sampler": "Heun(3)"})
    protocol = result.records[0].protocol
    assert (protocol.n_gen, protocol.seeds, protocol.nfe) == (50, "0-49", result.nfe)
    assert (protocol.ema, protocol.precision, protocol.sampler) == ("main", "32-true", "Heun(3)")
    assert protocol.device == "cpu"
    assert protocol.reference_fingerprint == reference().fingerprint


def test_held_out_data_gives_the_floor() -> None:
    with_floor = evaluate(heldout=reference(32, seed=1)).records[0].extra
    assert with_floor["floor"] > 0.0
    assert with_floor["floor_count"] == 32


def test_the_number_is_put_into_words_beside_its_floor() -> None:
    result = evaluate(heldout=reference(32, seed=1))
    record = result.records[0]
    assert result.words[-1] == (
        f"{record.value:.4g} is {record.value / record.extra['floor']:.2g} times the floor of "
        f"{record.extra['floor']:.4g}, the score of 32 real samples that were held out; 0 "
        "would mean features with the same mean and covariance as the reference."
    )
    assert str(result).endswith(result.words[-1])
    assert not any("times the floor" in text for text in evaluate().words)


def test_what_a_metric_lacks_is_found_before_sampling() -> None:
    class Lacking(type(metric())):
        def check(self) -> None:
            raise UsageError("no weights.", key="metric")

    def forbidden(*_: object) -> None:
        raise AssertionError("sampled")

    with pytest.raises(UsageError, match="no weights"):
        evaluate(metrics={"fd": Lacking(metric().extractor, name="fd_raw")}, on_batch=forbidden)


def test_metrics_of_the_model_stand_beside_those_of_samples() -> None:
    """In the order they were asked for, with their own solver and the evaluation's own cost."""
    straight, cost = Straightness(steps=5), NetworkEvaluations()
    metrics = {"straight": straight, "fd": metric(), "cost": cost}
    result = evaluate(metrics=metrics, facts={"ema": "main", "sampler": "Heun(3)"})
    assert [record.name for record in result.records] == ["straightness", "fd_raw", "nfe"]
    first, second, third = (record.protocol for record in result.records)
    assert (first.nfe, first.sampler) == (5.0, "Euler, 5 steps, uniform in linear-path time")
    assert (second.nfe, second.sampler) == (third.nfe, third.sampler) == (result.nfe, "Heun(3)")
    assert result.records[2].value == result.nfe
    assert {p.ema for p in (first, second, third)} == {"main"}
    assert {p.n_gen for p in (first, second, third)} == {50}
    assert second == evaluate(facts={"ema": "main", "sampler": "Heun(3)"}).records[0].protocol


def test_guidance_reaches_the_metrics_of_the_model() -> None:
    metrics = {"straight": Straightness(steps=5)}
    steered = ClassifierFree(scale=3.0).wrap(tiny_model())
    plain = evaluate(metrics=metrics).records[0]
    guided = evaluate(metrics=metrics, pipeline=pipeline(model=steered)).records[0]
    assert guided.value != plain.value
    assert guided.protocol.nfe == 10.0


def test_what_a_metric_of_the_model_refuses_is_found_before_sampling() -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("sampled")

    with pytest.raises(UsageError, match="no held-out split"):
        evaluate(metrics={"bits": BitsPerDim()}, on_batch=forbidden)


def test_what_needs_a_velocity_is_not_measured_of_a_consistency_model() -> None:
    model = tiny_model()
    model.is_flow_map = model.maps_to_data_only = True
    consistency = pipeline(model=model, sampler=FlowMapSampler(steps=1))
    words = "straightness follows the velocity of a model, but a consistency model has none"
    with pytest.raises(UsageError, match=words) as refused:
        evaluate(metrics={"straightness": Straightness()}, pipeline=consistency)
    assert refused.value.key == "metric.straightness"
    with pytest.raises(TypeError):  # sampling is reached: this network has no second time in truth
        evaluate(metrics={"nfe": NetworkEvaluations()}, pipeline=consistency)


@pytest.mark.slow
def test_two_processes_measure_what_one_measures(tmp_path: Path) -> None:
    in_two_processes(evaluate_together, tmp_path / "two.json", "fd", metric)
    two = json.loads((tmp_path / "two.json").read_text())
    one = evaluate()
    assert two["count"] == 50
    assert sorted(seed for seeds in two["seeds"] for seed in seeds) == list(range(50))
    assert all(two["seeds"])
    record = MetricRecord.from_dict(two["records"][0])
    assert record.value == pytest.approx(one.records[0].value, rel=1e-9)
    assert record.protocol == one.records[0].protocol


def test_results_keep_their_history(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    result = evaluate()
    append_results(path, result, checkpoint="last")
    append_results(path, result, checkpoint="step-1")
    entries = json.loads(path.read_text())["evaluations"]
    assert [entry["checkpoint"] for entry in entries] == ["last", "step-1"]
    assert MetricRecord.from_dict(entries[0]["records"][0]) == result.records[0]
    assert entries[0]["records"][0]["key"] == "eval/fd_raw_50"


def test_a_file_that_holds_no_results_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(UsageError, match="holds no results"):
        append_results(tmp_path / "results.json", evaluate())
    assert (tmp_path / "results.json").read_text() == "[1]"
