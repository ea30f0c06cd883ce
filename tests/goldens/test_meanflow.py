"""Goldens of MeanFlow and SplitMeanFlow."""

from tests.goldens import meanflow_guided, meanflow_targets, meanflow_times
from tests.goldens.harness import dispatch, parametrize

CHECKS = {
    **meanflow_guided.CHECKS,
    **meanflow_targets.CHECKS,
    **meanflow_times.CHECKS,
}


@parametrize("meanflow")
def test_meanflow(case):
    dispatch(case, CHECKS)
