"""The same dropout in several calls of a network."""

import torch

__all__ = ["DropoutReplay"]


class DropoutReplay:
    """Lets further calls of a network draw what the next call draws: dropout with the same mask.

    It remembers torch's global generators, from which networks draw dropout (of labels as well), as
    they are when it is made. After a call that began with :meth:`restart` they are where they were
    after the first one, so later draws do not change.

    Args:
        device: That of the network.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._host = torch.get_rng_state()
        self._accelerator = None
        if device.type != "cpu":
            self._accelerator = torch.get_device_module(device).get_rng_state(device)

    def restart(self) -> None:
        """Return to the state before the first call."""
        torch.set_rng_state(self._host)
        if self._accelerator is not None:
            torch.get_device_module(self._device).set_rng_state(self._accelerator, self._device)
