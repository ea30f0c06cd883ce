"""Run directories, checkpoints and manifests: what is written, and how it is read back."""

from flowexp.checkpoints.atomic import (
    write_atomically,
    write_json,
    write_npz,
    write_text,
    write_torch,
)
from flowexp.checkpoints.checkpoint_file import file_sha256, read_checkpoint, write_checkpoint
from flowexp.checkpoints.manifest import describe_run, parent
from flowexp.checkpoints.run_directory import RunDirectory, is_first_process
from flowexp.checkpoints.weights import LoadedWeights, load_weights

__all__ = [
    "LoadedWeights",
    "RunDirectory",
    "describe_run",
    "file_sha256",
    "is_first_process",
    "load_weights",
    "parent",
    "read_checkpoint",
    "write_atomically",
    "write_checkpoint",
    "write_json",
    "write_npz",
    "write_text",
    "write_torch",
]
