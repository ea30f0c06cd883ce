"""Results of tables and claims survive JSON unchanged."""

import json
import math
from dataclasses import replace

import pytest

from flowexp.tables.results import ClaimResult, Measurement, RowResult, TableResult

MEASURED = Measurement(
    values=(12.5, 12.0, 13.0),
    mean=12.5,
    spread=0.5,
    minimum=12.0,
    seeds=(0, 1, 2),
    title="FD[EfficientNet-Lite0 b4, 64px] 500 on digits",
    protocol={"metric": "FD", "n_gen": 500, "notice": None},
    n_gen=500,
    nfe=35.0,
    seconds=61.5,
    device="cpu",
    floor=3.25,
    notice=None,
)
ROW = RowResult(
    label="A",
    published=1.97,
    published_source="Table 2, F",
    published_nfe=35.0,
    verified=True,
    measured=MEASURED,
    status="done",
    log=None,
    scaled=True,
    mismatch=("n_gen: 50000 and 500",),
    runs=("outputs/jobs/eval/0123",),
)
FAILED = replace(ROW, measured=None, status="failed", log="outputs/jobs/train/ff/job.log", runs=())
TABLE = TableResult(
    name="edm/table2",
    title="EDM, table 2",
    source="arXiv 2206.00364",
    metric="fid",
    protocol={"num_samples": 50000, "reported": "minimum"},
    budget="cpu",
    rows=(ROW, FAILED),
    hardware="AMD EPYC, 2 cores",
    versions={"torch": "2.15.0"},
)
CLAIM = ClaimResult(
    name="rfpp/reflow_straightens",
    title="Reflow straightens",
    source="arXiv 2209.03003",
    published="4.85 against 378",
    arms=(ROW, FAILED),
    direction="lower",
    verdict="holds",
    test="paired t, one-sided, 5 %",
    statistic=-4.5,
    p_value=0.02,
    budget="cpu",
    hardware="AMD EPYC, 2 cores",
)


@pytest.mark.parametrize("result", [MEASURED, ROW, FAILED, TABLE, CLAIM])
def test_results_survive_json(result):
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert type(result).from_dict(json.loads(text)) == result


def test_numbers_that_json_has_not_survive_it():
    claim = replace(CLAIM, statistic=-math.inf, p_value=math.nan)
    one_seed = replace(MEASURED, values=(math.nan,), mean=math.nan, spread=math.nan, floor=None)
    back = ClaimResult.from_dict(json.loads(json.dumps(claim.to_dict(), allow_nan=False)))
    cell = Measurement.from_dict(json.loads(json.dumps(one_seed.to_dict(), allow_nan=False)))
    assert back.statistic == -math.inf
    assert math.isnan(back.p_value)
    assert all(map(math.isnan, (cell.values[0], cell.mean, cell.spread)))
    assert cell.floor is None


def test_a_row_without_runs_is_readable():
    content = ROW.to_dict()
    del content["runs"]
    assert RowResult.from_dict(content) == replace(ROW, runs=())


@pytest.mark.parametrize("change", [{"lable": "A"}, {"label": ...}])
def test_a_foreign_or_incomplete_result_is_refused_by_name(change):
    content = {**ROW.to_dict(), **change}
    content = {key: value for key, value in content.items() if value is not ...}
    with pytest.raises(ValueError, match=r"not a RowResult.*lab"):
        RowResult.from_dict(content)
