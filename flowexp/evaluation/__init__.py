"""Evaluation: metrics of a pipeline's samples and model, as records."""

from flowexp.evaluation.results_file import append_results, stored_results, together
from flowexp.evaluation.score import ScoreResult, in_words, require_measurable, score
from flowexp.evaluation.selection import BestOfSnapshots, PostHoc, Selection, SnapshotScores
from flowexp.evaluation.small_sets import sample_count
from flowexp.evaluation.summaries import Summary, seed_ranges, summarize

__all__ = ["BestOfSnapshots", "PostHoc", "ScoreResult", "Selection", "SnapshotScores", "Summary",
           "append_results", "in_words", "require_measurable", "sample_count", "score",
           "seed_ranges", "stored_results", "summarize", "together"]  # fmt: skip
