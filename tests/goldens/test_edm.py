"""Everything EDM: networks, preconditioning, noise levels, samplers, seeds."""

from pathlib import Path

from tests.goldens.edm_networks import CHECKS as NETWORKS
from tests.goldens.edm_samplers import CHECKS as SAMPLERS
from tests.goldens.harness import dispatch, parametrize

CHECKS = NETWORKS | SAMPLERS


@parametrize("edm")
def test_case(case: Path):
    dispatch(case, CHECKS)
