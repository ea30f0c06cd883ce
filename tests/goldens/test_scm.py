"""Goldens of continuous-time consistency models and TrigFlow."""

from tests.goldens import scm_checks
from tests.goldens.harness import dispatch, parametrize

CHECKS = {
    **scm_checks.CHECKS,
}


@parametrize("scm")
def test_scm(case):
    dispatch(case, CHECKS)
