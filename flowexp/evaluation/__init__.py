"""Evaluation: metrics of a pipeline's samples and model, as records."""

from flowexp.evaluation.score import (
    ScoreResult,
    Summary,
    append_results,
    require_measurable,
    score,
    seed_ranges,
    summarize,
)
from flowexp.evaluation.selection import BestOfSnapshots, SnapshotScores
from flowexp.evaluation.small_sets import sample_count

__all__ = ["BestOfSnapshots", "ScoreResult", "SnapshotScores", "Summary", "append_results",
           "require_measurable", "sample_count", "score", "seed_ranges", "summarize"]  # fmt: skip
