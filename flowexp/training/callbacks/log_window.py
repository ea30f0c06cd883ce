"""Sums of what training measured since the last logged row, kept on the device."""

import torch
from torch import Tensor

__all__ = ["LogWindow"]


class LogWindow:
    """Means of named scalars over the steps since the window was emptied.

    Reading a scalar makes the host wait for the device, so scalars are summed where they are, in
    float64, and read once per row. The window is part of a checkpoint: a resumed run logs the same.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, scalars: dict[str, Tensor]) -> None:
        """Add the detached scalars of one step; every step must bring the same names."""
        if self.count == 0:
            self._sums = {name: value.to(torch.float64) for name, value in scalars.items()}
        elif scalars.keys() != self._sums.keys():
            raise ValueError(f"metrics {sorted(scalars)} in a window of {sorted(self._sums)}")
        else:
            for name, value in scalars.items():
                self._sums[name] = self._sums[name] + value
        self.count += 1

    def means(self) -> dict[str, float]:
        """The means over the window and over all processes; waits for the device."""
        if self.count == 0:
            return {}
        sums = torch.stack(list(self._sums.values()))
        processes = 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            processes = torch.distributed.get_world_size()
            torch.distributed.all_reduce(sums)
        means = (sums / (self.count * processes)).tolist()
        return dict(zip(self._sums, means, strict=True))

    def empty(self) -> None:
        """Start a new window."""
        self.count = 0
        self._sums = {}

    def state(self) -> dict[str, int | dict[str, Tensor]]:
        """The window in plain containers."""
        return {"count": self.count, "sums": dict(self._sums)}

    def load(self, state: dict[str, int | dict[str, Tensor]], *, device: torch.device) -> None:
        """Replace the window by a stored one."""
        count, sums = state["count"], state["sums"]
        if not isinstance(count, int) or not isinstance(sums, dict):
            raise ValueError("not the state of a log window")
        self.count = count
        self._sums = {name: value.to(device) for name, value in sums.items()}
