"""Goldens of EDM2: layers, U-Net, loss, learning rate, averages and the order of a step."""

from tests.goldens import edm2_networks, edm2_training
from tests.goldens.harness import dispatch, parametrize

CHECKS = {
    **edm2_networks.CHECKS,
    **edm2_training.CHECKS,
}


@parametrize("edm2")
def test_edm2(case):
    dispatch(case, CHECKS)
