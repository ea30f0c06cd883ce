"""The number of CPU threads for sampling."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from flowexp.files import write_text
from flowexp.pipeline.pipeline import Pipeline
from flowexp.processes import several_started
from flowexp.threads import AUTO, given_threads, measure, restored, usable_cores

__all__ = ["sampling_threads", "single_calls"]

_LOG = logging.getLogger(__name__)
_FIRST_SAMPLES = 4
_MOST_SAMPLES = 32
_SECONDS = 0.1


@contextmanager
def sampling_threads(
    pipeline: Pipeline, wanted: int | str | None, *, kept_in: Path | None = None
) -> Iterator[str | None]:
    """Sample on ``wanted`` threads while the context lasts; yields the choice in words.

    ``wanted`` is a number, ``auto`` for the number with which the network is fastest, or None for
    PyTorch's default. On an accelerator, or if several processes share the work, ``auto`` changes
    nothing. The number affects samples only by the order of sums; work that can be continued keeps
    the first number in the file ``kept_in``.
    """
    words = None
    with restored():
        if isinstance(wanted, int):
            torch.set_num_threads(wanted)
        elif wanted == AUTO and torch.device(pipeline.device).type == "cpu":
            if kept_in is not None and kept_in.is_file():
                torch.set_num_threads(int(kept_in.read_text(encoding="utf-8")))
            elif given_threads() is None and usable_cores() > 1 and several_started() is None:
                words = _set_fastest(pipeline)
        if words is not None:
            _LOG.info("threads: %s", words)
            if kept_in is not None:
                write_text(kept_in, f"{torch.get_num_threads()}\n")
        yield words


def single_calls(pipeline: Pipeline) -> Callable[[int], None]:
    """Calls of the model for the first samples, at a time in the middle; their number is given."""
    middle = sum(pipeline.model.time_range) / 2
    t = torch.tensor(middle, dtype=torch.float64, device=pipeline.device)

    def call(count: int) -> None:
        start = pipeline.start(range(count))
        pipeline.model.predict(start.e, t, **start.conditions)

    return call


def _set_fastest(pipeline: Pipeline) -> str | None:
    work = single_calls(pipeline)
    most = min(_MOST_SAMPLES, pipeline.batch_size)
    first = partial(work, min(_FIRST_SAMPLES, most))
    try:
        with torch.inference_mode():
            found = measure(partial(work, most), first=first, seconds=_SECONDS)
    except Exception:  # an outside part can raise anything; sampling will report it
        _LOG.debug("the number of threads was not measured", exc_info=True)
        return None
    torch.set_num_threads(found.best)
    return str(found)
