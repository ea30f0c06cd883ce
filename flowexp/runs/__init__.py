"""Runs: their directories, checkpoints and manifests, and the models in them."""

from flowexp.runs.checkpoint_file import read_checkpoint, write_checkpoint
from flowexp.runs.manifest import describe_run, parent
from flowexp.runs.run_directory import RunDirectory, is_first_process

__all__ = [
    "RunDirectory",
    "describe_run",
    "is_first_process",
    "parent",
    "read_checkpoint",
    "write_checkpoint",
]
