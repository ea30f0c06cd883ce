"""Streams of frames through a few-step model: batched stages, residual guidance, a filter.

An argument outside its documented range is a ValueError.
"""

from flowexp.streaming.batch import (
    FullNegative,
    NoNegative,
    OneTimeNegative,
    ResidualGuidance,
    SelfNegative,
    StreamBatch,
    lcm_scalings,
)
from flowexp.streaming.frames import FolderFrames, FrameSource, SyntheticFrames
from flowexp.streaming.loop import (
    SimilarityFilter,
    StreamOutput,
    StreamReport,
    run_stream,
    skip_probability,
)

__all__ = [
    "FolderFrames",
    "FrameSource",
    "FullNegative",
    "NoNegative",
    "OneTimeNegative",
    "ResidualGuidance",
    "SelfNegative",
    "SimilarityFilter",
    "StreamBatch",
    "StreamOutput",
    "StreamReport",
    "SyntheticFrames",
    "lcm_scalings",
    "run_stream",
    "skip_probability",
]
