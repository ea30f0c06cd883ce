"""``flowexp eval`` under torchrun: what several processes measure is what one measures."""

import json

import pytest
import yaml

from flowexp.metrics import MetricRecord
from tests.e2e.command import flowexp, shared_by_two

pytestmark = pytest.mark.e2e

# 37 samples in batches of 8 and 5 images in one batch: divisible by nothing, a process is idle.
ARGUMENTS = (
    "metric=[fd_raw,straightness,curvature,first_order,bits_per_dim,nfe]",
    "metric.straightness.steps=4",
    "metric.curvature.steps=4",
    "metric.first_order.steps=4",
    "metric.bits_per_dim.num_images=5",
    "metric.bits_per_dim.rtol=1e-3",
    "metric.bits_per_dim.atol=1e-3",
    "num_samples=37",
    "batch_size=8",
    "sampler=dopri5",
    "sampler.rtol=1e-2",
    "sampler.atol=1e-2",
)


def last_records(run) -> list[MetricRecord]:
    stored = json.loads((run / "results.json").read_text())["evaluations"][-1]
    assert stored["count"] == 37
    return [MetricRecord.from_dict(record) for record in stored["records"]]


@pytest.mark.slow
def test_two_processes_measure_exactly_the_same_samples(trained_run, tmp_path):
    done = flowexp("eval", f"run={trained_run}", *ARGUMENTS, "dirs.run=one", cwd=tmp_path)
    assert done.code == 0, done.err
    alone = last_records(trained_run)
    both = shared_by_two("eval", f"run={trained_run}", *ARGUMENTS, "dirs.run=two", cwd=tmp_path)
    assert both.code == 0, both.err
    assert both.out.count("run directory") == 1
    shared = last_records(trained_run)
    assert [record.key for record in shared] == [record.key for record in alone]
    assert [record.name for record in alone][0::5] == ["fd_raw", "nfe"]
    for two, one in zip(shared, alone, strict=True):
        assert two.value == pytest.approx(one.value, rel=1e-5), one.name
        assert two.extra == pytest.approx(dict(one.extra), rel=1e-4), one.name
        assert two.protocol.n_gen == one.protocol.n_gen
        assert two.protocol.seeds == "0-36"
    nfe = alone[-1]
    assert nfe.extra["minimum"] <= nfe.value <= nfe.extra["maximum"]


def test_bits_of_a_source_without_density_are_refused_at_once(trained_run, tmp_path):
    given = ["path=pfgm_original", "metric=bits_per_dim"]
    done = flowexp("eval", f"run={trained_run}", *given, cwd=tmp_path)
    assert done.code == 2
    assert "metric.bits_per_dim" in done.err
    assert "Traceback" not in done.err


def test_what_is_printed_says_what_was_measured(trained_run, tmp_path):
    few = ["metric=[straightness,nfe]", "metric.straightness.steps=3", "num_samples=8"]
    done = flowexp("eval", f"run={trained_run}", *few, "dirs.run=out", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "straightness S/N[3 Euler steps in linear-path time] 8 on digits" in done.out
    assert "(standard error)" in done.out
    assert "chord arc ratio" in done.out
    config = yaml.safe_load((trained_run / "config.yaml").read_text())
    assert config["metric"].keys().isdisjoint({"straightness", "nfe"})
