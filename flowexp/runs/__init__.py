"""Runs: their directories, checkpoints and manifests, and the models in them."""

from flowexp.processes import is_first_process
from flowexp.runs.manifest import describe_run, parent
from flowexp.runs.run_directory import RunDirectory
from flowexp.runs.weights import read_checkpoint, write_checkpoint

__all__ = ["RunDirectory", "describe_run", "is_first_process", "parent", "read_checkpoint",
           "write_checkpoint"]  # fmt: skip
