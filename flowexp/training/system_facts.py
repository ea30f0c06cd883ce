"""Facts about the machine of a training, and its memory use."""

import platform
import sys

import torch

from flowexp.runs.manifest import processor

__all__ = ["memory_used", "system_facts"]

_GIB = 2.0**30


def system_facts(device: torch.device) -> dict[str, str | int]:
    """Device, versions and threads of this process, by the names used in loggers."""
    cuda = device.type == "cuda"
    return {
        "system/device": torch.cuda.get_device_name(device) if cuda else processor(),
        "system/torch": torch.__version__,
        "system/python": platform.python_version(),
        "system/threads": torch.get_num_threads(),
    }


def memory_used(device: torch.device) -> dict[str, float]:
    """Peak memory in GiB, of the accelerator or else of this process; {} if unknown."""
    if device.type == "cuda":
        return {"system/memory_gib": torch.cuda.max_memory_allocated(device) / _GIB}
    if sys.platform == "win32":
        return {}
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, elsewhere KiB.
    return {"system/memory_gib": most / _GIB if sys.platform == "darwin" else most * 1024 / _GIB}
