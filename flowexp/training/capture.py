"""No look for accelerators at every optimizer step of a training on the CPU."""

import torch
from torch.optim import Optimizer

__all__ = ["skip_capture_check"]

# Adam's guard against CUDA-graph capture: its name in torch 2.12 and later, and before.
_CHECKS = ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")


def skip_capture_check(optimizer: Optimizer, device: torch.device) -> None:
    """Spare a CPU training Adam's question whether a CUDA graph is being captured.

    On a build with CUDA, but without a device, the question costs 0.3 ms a step, because the driver
    is looked for each time; on the CPU nothing can be captured. Other devices keep the check.

    Args:
        optimizer: Changed in place.
        device: Where its parameters are.
    """
    if device.type != "cpu":
        return
    for name in _CHECKS:
        if hasattr(optimizer, name):
            setattr(optimizer, name, _nothing_to_check)


def _nothing_to_check() -> None:
    """The CPU has no graph capture."""
