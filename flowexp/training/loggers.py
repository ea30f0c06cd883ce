"""Loggers: where the rows of a training are copied to."""

import csv
import io
import json
import os
import secrets
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

import yaml
from pytorch_lightning.loggers import Logger

from flowexp.files import expanded, write_json, write_text
from flowexp.metrics.protocol import MetricRecord
from flowexp.runs import RunDirectory
from flowexp.runs.metrics_file import read_rows
from flowexp.tree import plain

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

__all__ = ["RunLogger", "CSVLogger", "TensorBoardLogger", "WandbLogger"]


_TENSORBOARD = "tensorboard"

Mode = Literal["offline", "online", "disabled"]
"""Of Weights & Biases."""


class RunLogger(Logger):
    """A Lightning logger that writes into the run directory; used by the first process only.

    Lightning's own loggers work as well, but append what a resumed training repeats.

    Attributes:
        appends: Whether a row that is logged again would appear twice; it is then left out.
    """

    appends: bool = False

    @abstractmethod
    def start(self, run: RunDirectory, *, config: Mapping[str, Any], step: int) -> None:
        """Begin, or continue after ``step``: later rows will come again.

        The run's ``metrics.jsonl`` holds the rows up to ``step``.
        """

    def log_facts(self, facts: Mapping[str, str | int], *, step: int) -> None:
        """Facts about the machine from ``step`` on, such as ``system/device``."""

    def log_image(self, name: str, file: Path, *, step: int) -> None:
        """Log an image of the training, such as the sample grid, from a ``file`` of the run."""

    def log_scores(
        self, run: RunDirectory, records: Sequence[MetricRecord], *, step: int, kimg: float
    ) -> None:
        """Log scores of a run's weights after ``step``, i.e. after ``kimg`` thousand images.

        It is called outside a training, without :meth:`start`, possibly while the run is trained.
        """

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Nothing: :meth:`start` has the configuration."""


class CSVLogger(RunLogger):
    """``metrics.csv``, or another name: one column per metric, one line per row.

    The file is made from ``metrics.jsonl`` at every start, so that a resumption repeats no row, and
    again when a new metric needs a new column. Rows that other callbacks logged are kept.
    """

    def __init__(self, *, name: str = "metrics.csv") -> None:
        self._file_name = name
        self._rows: list[dict[str, Any]] = []
        self._columns: list[str] = []
        self._path: Path | None = None
        self._file: IO[str] | None = None

    def start(self, run: RunDirectory, *, config: Mapping[str, Any], step: int) -> None:
        self._path = run.path / self._file_name
        others = [
            row for row in _read(self._path) if "kimg" not in row and int(row["step"]) <= step
        ]
        rows = [*read_rows(run.metrics_file), *others]
        self._rows = sorted(rows, key=lambda row: int(row["step"]))
        self._rewrite()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step or 0, **metrics}
        same_step = takewhile(lambda old: int(old["step"]) == row["step"], reversed(self._rows))
        if any(row.keys() == old.keys() for old in same_step):
            return  # a resumed training repeats what was logged at the moment of its checkpoint
        self._rows.append(row)
        if not row.keys() <= set(self._columns):
            self._rewrite()
        elif self._file is not None:
            self._file.write(_table([row], self._columns, header=False))

    def finalize(self, status: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rewrite(self) -> None:
        """Write header and all rows anew, then append again."""
        if self._path is None:
            return
        self.finalize("rewritten")
        self._columns = list(dict.fromkeys(key for row in self._rows for key in row))
        write_text(self._path, _table(self._rows, self._columns, header=True))
        self._file = self._path.open("a", newline="", encoding="utf-8")


def _read(path: Path) -> list[dict[str, str]]:
    """The rows of an earlier file, each with the columns it has; a cut last line is left out."""
    if not path.exists():
        return []
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    return [{k: v for k, v in row.items() if v} for row in rows if None not in row.values()]


def _table(rows: Iterable[Mapping[str, Any]], columns: list[str], *, header: bool) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header and columns:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class TensorBoardLogger(RunLogger):
    """Scalars, sample grids, texts and scores in ``tensorboard/`` of the run directory.

    The step is that of the optimizer. Scores measured during the training go to the subfolder
    ``eval``, because TensorBoard stops following a file when a newer one appears beside it.

    Args:
        flush_seconds: Seconds between two writes.
    """

    def __init__(self, *, flush_seconds: int = 30) -> None:
        if flush_seconds < 1:
            raise ValueError(f"flush_seconds is {flush_seconds}; expected at least 1")
        self.flush_seconds = flush_seconds
        self._folder = Path()
        self._writer: SummaryWriter | None = None

    def start(self, run: RunDirectory, *, config: Mapping[str, Any], step: int) -> None:
        """Open the writer, and hide scalars and images beyond ``step`` from before a kill."""
        self._folder = run.path / _TENSORBOARD
        self._writer = self._opened(self._folder, purge_step=step + 1)
        self._add_texts({"config": _as_code(config)}, step=step)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)

    def log_facts(self, facts: Mapping[str, str | int], *, step: int) -> None:
        self._add_texts({name: str(value) for name, value in facts.items()}, step=step)

    def log_image(self, name: str, file: Path, *, step: int) -> None:
        import numpy as np
        from PIL import Image

        if self._writer is not None:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"))
            self._writer.add_image(name, pixels, step, dataformats="HWC")

    def log_scores(
        self, run: RunDirectory, records: Sequence[MetricRecord], *, step: int, kimg: float
    ) -> None:
        folder = run.path / _TENSORBOARD
        writer = self._opened(folder / "eval" if run.is_in_use() else folder)
        for record in records:
            writer.add_scalar(record.key, record.value, step)
            writer.add_text(f"{record.key}/protocol", _as_code(_described(record, kimg)), step)
        writer.close()

    def finalize(self, status: str) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add_texts(self, texts: Mapping[str, str], *, step: int) -> None:
        """Add the texts that differ from the last of their name; old texts cannot be hidden."""
        file = self._folder / "texts.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if self._writer is None or texts.items() <= known.items():
            return
        for name, text in texts.items() - known.items():
            self._writer.add_text(name, text, step)
        self._writer.flush()
        write_json(file, {**known, **texts})

    def _opened(self, folder: Path, *, purge_step: int | None = None) -> "SummaryWriter":
        from torch.utils.tensorboard.writer import SummaryWriter

        return SummaryWriter(str(folder), purge_step=purge_step, flush_secs=self.flush_seconds)


def _described(record: MetricRecord, kimg: float) -> dict[str, Any]:
    """The facts beside a score: kimg of its weights, protocol and others."""
    content = record.to_dict()
    return {"kimg": kimg, **{k: v for k, v in content.items() if k not in ("name", "value")}}


def _as_code(content: Mapping[str, Any]) -> str:
    """YAML as a block of code in Markdown, which TensorBoard renders."""
    text = yaml.safe_dump(plain(content), sort_keys=False, allow_unicode=True)
    return "".join(f"    {line}\n" for line in text.splitlines())


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

    appends = True

    def start(self, run: RunDirectory, *, config: Mapping[str, Any], step: int) -> None:
        """Open the run, or open it again under the id it had."""
        self._run = self._opened(run, config)

    def _opened(self, run: RunDirectory, config: Mapping[str, Any]) -> Any:  # noqa: ANN401
        if not expanded("~").is_absolute():
            os.environ.setdefault("WANDB_CONFIG_DIR", str(run.path / "wandb"))
        import wandb

        id_file = run.path / "wandb_id.txt"
        if not id_file.exists():
            write_text(id_file, secrets.token_hex(4) + "\n")
        return wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group,
            job_type=self.job_type,
            name=self._display_name or run.path.name,
            id=id_file.read_text(encoding="utf-8").strip(),
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

    def log_facts(self, facts: Mapping[str, str | int], *, step: int) -> None:
        if self._run is not None:
            self._run.config.update(dict(facts), allow_val_change=True)

    def log_image(self, name: str, file: Path, *, step: int) -> None:
        import wandb

        if self._run is not None:
            self._run.log({name: wandb.Image(str(file))}, step=step)

    def log_scores(
        self, run: RunDirectory, records: Sequence[MetricRecord], *, step: int, kimg: float
    ) -> None:
        """Add the scores to the run, over kimg: W&B's own steps only go forward."""
        opened = self._opened(run, run.config())
        opened.define_metric("eval/*", step_metric="kimg")
        opened.log({"step": step, "kimg": kimg, **{r.key: r.value for r in records}})
        protocols = {f"{r.key}/protocol": plain(_described(r, kimg)) for r in records}
        opened.config.update(protocols, allow_val_change=True)
        opened.finish()

    def finalize(self, status: str) -> None:
        """Close the run, with W&B's exit code for failures."""
        if self._run is not None:
            self._run.finish(exit_code=0 if status == "success" else 1)
            self._run = None
