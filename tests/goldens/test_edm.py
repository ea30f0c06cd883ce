"""Everything EDM: networks, preconditioners, losses, augmentation, samplers, seeds."""

from pathlib import Path

from tests.goldens.edm_checkpoints import CHECKS as CHECKPOINTS
from tests.goldens.edm_networks import CHECKS as NETWORKS
from tests.goldens.edm_samplers import CHECKS as SAMPLERS
from tests.goldens.edm_training import CHECKS as TRAINING
from tests.goldens.harness import dispatch, parametrize

CHECKS = CHECKPOINTS | NETWORKS | SAMPLERS | TRAINING


@parametrize("edm")
def test_case(case: Path):
    dispatch(case, CHECKS)
