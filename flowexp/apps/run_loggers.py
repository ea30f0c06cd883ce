"""The loggers of a stored run, which get what is measured after its training."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowexp.config.instantiate import instantiate
from flowexp.config.trust import Author
from flowexp.progress import stage

if TYPE_CHECKING:
    from flowexp.metrics.protocol import MetricRecord
    from flowexp.runs.opening import OpenedRun

__all__ = ["log_scores"]

_LOG = logging.getLogger(__name__)
_WITHOUT_SCORES = "flowexp.training.CSVLogger"
"""Has the rows of a training only; to find that out by its class takes the import of Lightning."""


def log_scores(opened: "OpenedRun", records: "Sequence[MetricRecord]") -> None:
    """Give the scores of a run's weights to the loggers that its training had.

    A logger that cannot take them, such as one whose server is away, is named in a warning.
    """
    run, weights = opened.run, opened.weights
    stored = run.config().get("logger") or {}
    nodes = {k: v for k, v in stored.items() if v and v.get("_target_") != _WITHOUT_SCORES}
    if not nodes:
        return
    with stage("giving the scores to the run's loggers"):
        try:
            from flowexp.training import RunLogger

            built = instantiate(nodes, key="logger", by=Author.of(run.config_file))
            for logger in built.values():
                if isinstance(logger, RunLogger):
                    logger.log_scores(run, records, step=weights.step, kimg=weights.kimg)
        except Exception as error:
            # The scores are stored already, and loggers have errors of their own.
            _LOG.warning(
                "the run's loggers (%s) did not get the scores: %s", ", ".join(nodes), error
            )
