"""The pipeline: a model and how it is sampled, from seeds to samples."""

from flowexp.pipeline.beside import with_given
from flowexp.pipeline.class_rows import GridSamples, classes_shown
from flowexp.pipeline.images import (
    Images,
    class_grid_image,
    grid_image,
    save_grid,
    save_images,
    scatter_image,
)
from flowexp.pipeline.latents import FlowexpLatents, LatentDraws, Latents, ReferenceLatents
from flowexp.pipeline.pipeline import Pipeline, SampleBatch, Start, parse_seeds, seeds_text
from flowexp.pipeline.threads import sampling_threads
from flowexp.processes import Processes, in_turn

__all__ = [
    "SampleBatch",
    "LatentDraws",
    "FlowexpLatents",
    "GridSamples",
    "Images",
    "Latents",
    "Pipeline",
    "Processes",
    "ReferenceLatents",
    "Start",
    "class_grid_image",
    "classes_shown",
    "grid_image",
    "in_turn",
    "parse_seeds",
    "sampling_threads",
    "save_grid",
    "save_images",
    "scatter_image",
    "seeds_text",
    "with_given",
]
