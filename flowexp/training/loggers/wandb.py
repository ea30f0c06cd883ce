"""Rows in a Weights & Biases run."""

import secrets
from collections.abc import Mapping
from typing import Any, Literal, get_args

from flowexp.files import write_text
from flowexp.runs import RunDirectory
from flowexp.training.loggers.base import RunLogger

__all__ = ["WandbLogger"]

Mode = Literal["offline", "online", "disabled"]


class WandbLogger(RunLogger):
    """A W&B run with the resolved configuration; offline by default.

    The run's id is kept in ``wandb_id.txt`` of the run directory and used again on resumption, and
    every logger has a run of its own even if another one is open in the same process.

    Args:
        mode: ``offline``, ``online`` or ``disabled``.
        entity: W&B user or team, or None for the default one.
        group: Name that gathers runs, for example those of a sweep.
        name: Display name; None = the run directory's.
        job_type: Name that gathers runs within a group, for example the rows of a table.

    Raises:
        ValueError: Unknown mode.
    """

    def __init__(
        self,
        *,
        project: str = "flowexp",
        mode: Mode = "offline",
        entity: str | None = None,
        group: str | None = None,
        name: str | None = None,
        job_type: str | None = None,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode is {mode!r}; allowed: {', '.join(get_args(Mode))}")
        self.project = project
        self.mode = mode
        self.entity = entity
        self.group = group
        self._display_name = name
        self.job_type = job_type
        self._run: Any = None

    def start(self, run: RunDirectory, *, config: Mapping[str, Any], step: int) -> None:
        """Open the run, or open it again under the id it had."""
        import wandb

        id_file = run.path / "wandb_id.txt"
        if not id_file.exists():
            write_text(id_file, secrets.token_hex(4) + "\n")
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group,
            job_type=self.job_type,
            name=self._display_name or run.path.name,
            id=id_file.read_text().strip(),
            # Offline runs have no server to ask; wandb sync joins the parts by their id.
            resume="allow" if self.mode == "online" else None,
            reinit="create_new",
            mode=self.mode,
            dir=str(run.path),
            config=dict(config),
        )

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._run is not None:
            self._run.log(dict(metrics), step=step)

    def finalize(self, status: str) -> None:
        """Close the run, with W&B's exit code for failures."""
        if self._run is not None:
            self._run.finish(exit_code=0 if status == "success" else 1)
            self._run = None
