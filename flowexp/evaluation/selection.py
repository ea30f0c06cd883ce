"""Which weights of a training are evaluated: the last, its best snapshot, or a mean of them."""

import datetime
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.errors import UsageError
from flowexp.files import file_sha256, write_json
from flowexp.locks import locked
from flowexp.metrics.protocol import metric_key
from flowexp.processes import Processes
from flowexp.progress import counted

if TYPE_CHECKING:
    import torchmetrics

    from flowexp.diagnostics import ModelMetric
    from flowexp.metrics.base import Metric

__all__ = ["BestOfSnapshots", "Chosen", "PostHoc", "Scored", "Selection", "SnapshotScores"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """A snapshot, the thousands of images behind it, and its score; nan if that is not finite."""

    path: Path
    kimg: float
    value: float


@dataclass(frozen=True)
class Chosen:
    """The best snapshot, and how it was found, for protocols."""

    best: Scored
    words: str


class SnapshotScores:
    """The scores that the snapshots of a run have got so far, each stored as soon as it is known.

    A score is found again by the content of the snapshot and by what it was measured with.

    Args:
        file: Where they are stored; it need not exist.
        measured_with: Digest of everything but the snapshot that determines a score.
    """

    def __init__(self, file: Path, *, measured_with: str) -> None:
        self.file = file
        self.measured_with = measured_with

    def find(self, sha256: str) -> float | None:
        """The stored score; None if there is none.

        Raises:
            UsageError: The file holds something else.
        """
        try:
            for entry in self._entries():
                if (entry["sha256"], entry["measured_with"]) == (sha256, self.measured_with):
                    return math.nan if entry["value"] is None else float(entry["value"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"{self.file} holds no scores of snapshots ({error!r})."
            raise UsageError(problem, key="run", remedy="Remove the file.") from error
        return None

    def add(self, sha256: str, scored: Scored, *, metric: str) -> None:
        """Store a score; those of other processes stay. A warning says if that cannot be done."""
        entry = {
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "snapshot": scored.path.stem,
            "kimg": scored.kimg,
            "sha256": sha256,
            "measured_with": self.measured_with,
            "metric": metric,
            "value": scored.value if math.isfinite(scored.value) else None,
        }
        try:
            with locked(self.file.with_name(".scores.lock")):
                write_json(self.file, {"scores": [*self._entries(), entry]})
        except OSError as error:
            _LOG.warning("that score is not stored, and measured again next time: %s", error)

    def _entries(self) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        return [*json.loads(self.file.read_text(encoding="utf-8"))["scores"]]


class Selection:
    """A rule by which weights are chosen among a training's snapshots, or made of them."""


class PostHoc(Selection):
    """The power-function average of any width, made of the snapshots of a training.

    The training keeps snapshots (``trainer.snapshot_kimg``) of one or more power-function averages
    (``ema=power``, ``ema=several``); two of different widths represent others far better than one.
    The average is stored in the run as ``checkpoints/post-hoc-STD.ckpt``, whose name every command
    takes as ``checkpoint=``.

    Args:
        std: Relative width of the profile, in (0, 0.2886...].
        kimg: Thousands of images at which the profile ends, > 0; None = at the last snapshot.

    Raises:
        ValueError: An argument is out of range.

    Source: Karras et al., EDM2, 2024, arXiv 2312.02696, section 3.2. Their best widths for FID are
    from 0.03 to 0.14, and depend on the network, the metric and the guidance.
    """

    def __init__(self, *, std: float, kimg: float | None = None) -> None:
        if not 0.0 < std <= 0.28867514:
            raise ValueError(f"std is {std}; allowed: (0, 0.2886...]")
        if kimg is not None and not 0.0 < kimg < math.inf:
            raise ValueError(f"kimg is {kimg}; allowed: finite positive numbers or null")
        self.std = float(std)
        self.kimg = kimg


class BestOfSnapshots(Selection):
    """The snapshot with the best score, on the same seeds for all; of equal ones the earliest.

    Best is lowest, or highest for metrics of which more is better. A score that is not finite is
    never chosen. The numbers of the chosen one are lower than those of the last weights for two
    reasons: it may be better, and the minimum over many evaluations is below their mean by
    chance. They compare only with numbers that were selected in the same way.

    Args:
        num_samples: Images that score a snapshot, >= 2.
        metric: Name of the metric; None = the first of the evaluation.

    Raises:
        ValueError: num_samples < 2.

    Source: Karras et al., EDM, 2022, arXiv 2206.00364, appendix F.3: a snapshot every 2.5 Mimg, the
    one with the lowest FID, then the minimum of three evaluations. Lee et al., RF++, 2024, arXiv
    2405.20320: the best FID in training.
    """

    def __init__(self, *, num_samples: int, metric: str | None = None) -> None:
        if num_samples < 2:
            raise ValueError(f"num_samples is {num_samples}; allowed: integers >= 2")
        self.num_samples = num_samples
        self.metric = metric

    def metric_of(
        self, metrics: "Mapping[str, Metric | ModelMetric | torchmetrics.Metric]"
    ) -> tuple[str, bool]:
        """Name of the metric that selects, and whether more of it is better.

        Raises:
            UsageError: It is not among the metrics, or neither more nor less of it is better.
        """
        name = next(iter(metrics)) if self.metric is None else self.metric
        if name not in metrics:
            raise UsageError(
                f"{name!r} is not measured here.",
                key="selection.metric",
                remedy=f"Choose from: {', '.join(metrics)}; or add it to metric=[...].",
            )
        higher: bool | None = metrics[name].higher_is_better
        if higher is None:
            raise UsageError(
                f"neither more nor less of {name} is better, so it cannot select.",
                key="selection.metric",
                remedy="Choose another metric, for example fid or fd_efflite0.",
            )
        return name, higher

    def choose(
        self,
        snapshots: Mapping[Path, float],
        *,
        metric: str,
        higher_is_better: bool,
        scores: SnapshotScores,
        measure: Callable[[Path], float],
        processes: Processes,
    ) -> Chosen:
        """Score the snapshots that have no score yet, and choose; every process must call this.

        Args:
            snapshots: Files, oldest first, each with its thousands of images.
            metric: Name of the metric.
            higher_is_better: Whether more of it is better.
            scores: The stored scores, of which the first process's count.
            measure: The score of a snapshot; that of the first process counts.
            processes: The processes that share the work.

        Raises:
            UsageError: No score is finite.
        """
        found = list[Scored]()
        with counted("scored", total=len(snapshots), unit="snapshots") as task:
            for number, (path, kimg) in enumerate(snapshots.items(), start=1):
                sha256 = file_sha256(path)
                stored = processes.of_first(scores.find(sha256) if processes.is_first else None)
                value = processes.of_first(measure(path)) if stored is None else stored
                if stored is None and processes.is_first:
                    _LOG.info(
                        "snapshot %d of %d, %g kimg: %s %.4g",
                        *(number, len(snapshots), kimg, metric, value),
                    )
                    scores.add(sha256, Scored(path, kimg, value), metric=metric)
                found.append(Scored(path, kimg, value))
                task.advance(made=stored is None)
        span = f"{found[0].kimg:g} to {found[-1].kimg:g} kimg"
        by = metric_key(metric, self.num_samples).removeprefix("eval/")
        words = f"best of {len(found)} snapshots, {span}, by {by}"
        return Chosen(best_of(found, higher_is_better=higher_is_better), words)


def best_of(found: Sequence[Scored], *, higher_is_better: bool) -> Scored:
    """The best of the finite scores; of equal ones the first."""
    finite = [one for one in found if math.isfinite(one.value)]
    if not finite:
        raise UsageError(
            f"none of the {len(found)} snapshots has a finite score.",
            key="selection",
            remedy="Look at the samples of one: flowexp sample run=... checkpoint=snapshot-....",
        )
    sign = -1.0 if higher_is_better else 1.0
    return min(finite, key=lambda one: sign * one.value)
