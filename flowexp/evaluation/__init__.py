"""Evaluation: metrics of a pipeline's samples and model, as records."""

from flowexp.evaluation.score import (
    ScoreResult,
    Summary,
    append_results,
    in_words,
    require_measurable,
    score,
    seed_ranges,
    summarize,
)
from flowexp.evaluation.selection import BestOfSnapshots, SnapshotScores

__all__ = ["BestOfSnapshots", "ScoreResult", "SnapshotScores", "Summary", "append_results",
           "in_words", "require_measurable", "score", "seed_ranges", "summarize"]  # fmt: skip
