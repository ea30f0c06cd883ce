"""Evaluation: samples as functions of their seeds, and what metrics say about them."""

from flowexp.evaluation.generate import GeneratedBatch, generate
from flowexp.evaluation.images import grid_image, save_grid, save_images, scatter_image
from flowexp.evaluation.latents import FlowexpLatents, Latents, ReferenceLatents
from flowexp.evaluation.processes import Processes
from flowexp.evaluation.repeats import Summary, seed_ranges, summarize
from flowexp.evaluation.score import ScoreResult, append_results, score
from flowexp.evaluation.seeds import parse_seeds, seeds_text

__all__ = [
    "GeneratedBatch",
    "Processes",
    "ScoreResult",
    "Summary",
    "append_results",
    "generate",
    "grid_image",
    "FlowexpLatents",
    "Latents",
    "ReferenceLatents",
    "parse_seeds",
    "save_grid",
    "save_images",
    "scatter_image",
    "score",
    "seed_ranges",
    "seeds_text",
    "summarize",
]
