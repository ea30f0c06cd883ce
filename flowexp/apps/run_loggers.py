"""The loggers of a stored run, which receive scores measured after the training."""

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
"""A logger of training metrics only, named here because importing its class imports Lightning."""


def log_scores(opened: "OpenedRun", records: "Sequence[MetricRecord]") -> None:
    """Log the scores of a run's weights to the loggers of its training.

    If a logger fails, for example because its server is unreachable, a warning names it.
    """
    run, weights = opened.run, opened.weights
    stored = run.config().get("logger") or {}
    nodes = {k: v for k, v in stored.items() if v and v.get("_target_") != _WITHOUT_SCORES}
    if not nodes:
        return
    with stage("logging the scores"):
        try:
            from flowexp.training import RunLogger

            built = instantiate(nodes, key="logger", by=Author.of(run.config_file))
            for logger in built.values():
                if isinstance(logger, RunLogger):
                    logger.log_scores(run, records, step=weights.step, kimg=weights.kimg)
        except Exception as error:
            # The scores are already stored, and a logger can raise anything.
            _LOG.warning("the scores were not logged to %s: %s", ", ".join(nodes), error)
