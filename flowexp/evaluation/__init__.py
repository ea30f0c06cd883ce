"""Evaluation: metrics of a pipeline's samples and model, as records."""

from flowexp.evaluation.score import (
    ScoreResult,
    Summary,
    append_results,
    score,
    seed_ranges,
    summarize,
)

__all__ = ["ScoreResult", "Summary", "append_results", "score", "seed_ranges", "summarize"]
