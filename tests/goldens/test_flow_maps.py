"""Goldens of two-time models: targets, losses, laws of times, exact maps and samplers."""

from tests.goldens import (
    flow_maps_guided,
    flow_maps_sampler,
    flow_maps_selfdistill,
    flow_maps_shortcut,
    flow_maps_times,
    flow_maps_tvm,
)
from tests.goldens.harness import dispatch, parametrize

CHECKS = {
    **flow_maps_guided.CHECKS,
    **flow_maps_sampler.CHECKS,
    **flow_maps_selfdistill.CHECKS,
    **flow_maps_shortcut.CHECKS,
    **flow_maps_times.CHECKS,
    **flow_maps_tvm.CHECKS,
}


@parametrize("flow-maps")
def test_flow_maps(case):
    dispatch(case, CHECKS)
