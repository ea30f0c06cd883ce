"""Evaluation: metrics of a pipeline's samples and model, as records."""

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
