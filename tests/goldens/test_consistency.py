"""Goldens of consistency models: CM, iCT, ECT and TCM."""

from tests.goldens import consistency_losses, consistency_times
from tests.goldens.harness import dispatch, parametrize

CHECKS = {
    **consistency_losses.CHECKS,
    **consistency_times.CHECKS,
}


@parametrize("consistency")
def test_consistency(case):
    dispatch(case, CHECKS)
