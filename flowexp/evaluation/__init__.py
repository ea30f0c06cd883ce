"""Evaluation: what metrics say about the samples of a pipeline."""

from flowexp.evaluation.repeats import Summary, seed_ranges, summarize
from flowexp.evaluation.score import ScoreResult, append_results, score

__all__ = [
    "ScoreResult",
    "Summary",
    "append_results",
    "score",
    "seed_ranges",
    "summarize",
]
