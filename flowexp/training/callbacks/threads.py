"""The number of CPU threads of a training: chosen once, and kept when the run is continued."""

import logging
import os
from functools import partial
from typing import TYPE_CHECKING

import torch
from pytorch_lightning import Callback, Trainer

from flowexp.runs.manifest import described_devices
from flowexp.threads import AUTO, SHARED_BY, given_threads, measure, restored, usable_cores
from flowexp.training.timed_passes import fitting, passes, seconds_of

if TYPE_CHECKING:
    from flowexp.training.module import FlowModule

__all__ = ["Threads"]

_LOG = logging.getLogger(__name__)
_PIECE_SECONDS = 0.25
# A training that takes less time than this on one thread is not worth a measurement.
_SHORT_SECONDS = 5.0


class Threads(Callback):
    """Sets ``trainer.threads`` before the first step and records the number in the manifest.

    The number of threads decides the order of sums, so a run that is continued takes the recorded
    number and ends bit for bit as if it had not been stopped. ``auto`` times a copy of the network
    with the random numbers of the next step, which leaves the training unchanged.
    """

    def on_train_start(self, trainer: Trainer, pl_module: "FlowModule") -> None:
        """Choose, log and record the number, unless on an accelerator or in several processes."""
        wanted = pl_module.settings.threads
        recorded = pl_module.run.manifest().get("threads")
        if wanted == AUTO:
            here = pl_module.device.type == "cpu" and trainer.world_size == 1
            if not here or (recorded is None and pl_module.step > 0):
                return  # a run from before this option continues as it began
            count, words = _recorded(recorded) or _chosen(pl_module)
        elif wanted is not None:
            count, words = int(wanted), f"{wanted} of {usable_cores()}"
            if recorded not in (None, wanted):
                words += f" (the run began with {recorded}; results now differ in the last bits)"
        else:
            return
        torch.set_num_threads(count)
        if trainer.is_global_zero:
            _LOG.info("threads: %s", words)
            if recorded is None:
                pl_module.run.record(threads=count, devices=described_devices())


def _recorded(count: int | None) -> tuple[int, str] | None:
    if count is None:
        return None
    return count, f"{count} of {usable_cores()}, as at the start of this run"


def _chosen(module: "FlowModule") -> tuple[int, str]:
    """The number that ``auto`` chooses, and the reason."""
    cores, given = usable_cores(), given_threads()
    if given is not None:
        return given[0], f"{given[0]} of {cores} ({given[1]})"
    if cores == 1:
        jobs = os.environ.get(SHARED_BY)
        return 1, "1, its share of the cores" if jobs else "1 of 1"
    try:
        with restored(), torch.random.fork_rng(devices=[]), torch.enable_grad():
            return _fastest(module)
    except Exception as error:  # an outside part can raise anything when it is copied
        _LOG.debug("the number of threads was not measured", exc_info=True)
        count = min(cores, torch.get_num_threads())
        return count, f"{count} of {cores}, not measured ({type(error).__name__})"


def _fastest(module: "FlowModule") -> tuple[int, str]:
    """The fastest number for passes through the next step; 1 for a short training."""
    settings, step = module.settings, module.step
    pairs, t = module.draws(next(iter(module.train_dataloader())), step)
    work = passes(module.model, module.parts.objective, pairs, t, seed=module.seed, step=step)
    torch.set_num_threads(1)
    most = min(settings.micro_batch or len(t), len(t))
    first, size = fitting(work, most=most, seconds=_PIECE_SECONDS)
    images = (settings.total_steps - step) * settings.batch_size
    whole = seconds_of(work, size) / size * images
    if whole < _SHORT_SECONDS:
        return 1, f"1 of {usable_cores()} (a training of {max(1, round(whole))} s)"
    found = measure(partial(work, size), first=partial(work, first))
    return found.best, str(found)
