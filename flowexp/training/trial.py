"""The trial step before a training: one tiny step of everything that will run later.

Without it, a bug in a sampler or a callback could end a training of hours, at its first grid or its
last step. The trial step trains a copy of all parts on two samples in a temporary folder, with the
same code, the callbacks' hooks, the sample grid and the checkpoint.
"""

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities.seed import isolate_rng

from flowexp.config.libraries import required
from flowexp.data import ImageArrays
from flowexp.errors import NotWrittenError, StoppedError, UsageError
from flowexp.processes import Place
from flowexp.runs import RunDirectory, read_checkpoint
from flowexp.training.callbacks import SampleGrid
from flowexp.training.fit import fit
from flowexp.training.observed import observe
from flowexp.training.parts import TrainingParts

__all__ = ["LONG_STEPS", "try_out"]

LONG_STEPS = 1000
"""Trainings of at least this many steps get a trial step; shorter ones fail soon enough."""

_SAMPLES = 2
_LARGEST_NETWORK = 300_000_000  # parameters; a copy with its optimizer takes five times the memory


def try_out(
    parts: TrainingParts, *, seed: int, config: Mapping[str, Any], arrays: ImageArrays
) -> None:
    """Run one step of copies of all parts, and raise the error of a faulty part.

    Nothing that the training uses is changed, including random states. Lightning's own callbacks
    and the loggers are left out, because they may write elsewhere.

    Raises:
        UsageError: A part returns something of the wrong shape or type.
        Exception: Any error of a part.
    """
    if sum(p.numel() for p in parts.model.network.parameters()) > _LARGEST_NETWORK:
        return
    few = max(_SAMPLES, parts.group)
    sizes = dict.fromkeys((min(few, parts.settings.batch_size), parts.settings.batch_size))
    failure: Exception | None = None
    for size in sizes:
        try:
            with _quiet(), isolate_rng():
                _one_step(parts, size=size, seed=seed, config=config, arrays=arrays)
        except StoppedError as stop:
            raise KeyboardInterrupt from stop
        except NotWrittenError:
            return  # the temporary folder is full
        except Exception as error:
            # A part may need more samples than two.
            failure = failure or error
        else:
            return
    if isinstance(failure, UsageError):
        raise failure
    if failure is not None:
        failure.add_note("Nothing was trained: the trial step before the training failed.")
        raise failure


def _one_step(
    parts: TrainingParts,
    *,
    size: int,
    seed: int,
    config: Mapping[str, Any],
    arrays: ImageArrays,
) -> None:
    tried = _copied(parts, size=size)
    if tried is None:
        return
    observed = observe(tried)
    with tempfile.TemporaryDirectory(prefix="flowexp-trial-") as folder:
        run = RunDirectory(Path(folder))
        for inner in (run.checkpoints, run.samples):
            inner.mkdir()
        alone = Place(started=True)
        fit(tried, run=run, seed=seed, config=config, arrays=arrays, place=alone)
        checkpoint = run.latest_checkpoint()
        if checkpoint is not None:
            states = read_checkpoint(checkpoint, key="callbacks")["callbacks"]
            for callback in tried.callbacks.values():
                if callback.state_key in states:
                    callback.load_state_dict(states[callback.state_key])
    if tried.pipeline is not None and not observed.sampled:
        tried.pipeline.replace(device="cpu").sample(range(1))


def _copied(parts: TrainingParts, *, size: int) -> TrainingParts | None:
    """Copies of the parts for one step; None if a part cannot be copied."""
    settings = replace(
        parts.settings,
        max_kimg=size / 1000.0,
        batch_size=size,
        micro_batch=None,
        compile=False,
        devices=1,
        num_nodes=1,
        strategy="auto",
        log_every=1,
        checkpoint_kimg=None,
        snapshot_kimg=None,
    )
    chosen = {name: item for name, item in parts.callbacks.items() if _takes_part(item)}
    try:
        tried = copy.deepcopy(replace(parts, settings=settings, callbacks=chosen, loggers={}))
    except Exception:  # a part that cannot be copied is not faulty
        return None
    for callback in tried.callbacks.values():
        if isinstance(callback, SampleGrid):
            callback.num = 1
    return replace(tried, loggers={"trial": DummyLogger()})


def _takes_part(callback: Callback) -> bool:
    """Whether a callback is flowexp's or the user's own; those of libraries may write anywhere."""
    package = type(callback).__module__.partition(".")[0]
    return package == "flowexp" or package not in required()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress output, log records and warnings, which the training will repeat."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        torch.cuda.empty_cache()  # nothing without CUDA
