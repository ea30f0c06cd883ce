"""The scores of runs as a pandas data frame."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.config.run_folders import is_run
from flowexp.errors import UsageError
from flowexp.metrics.protocol import Protocol
from flowexp.report.run_record import RunRecord, StoredEvaluation, read_run

if TYPE_CHECKING:
    import pandas

__all__ = ["results"]

_PROTOCOL = tuple(field.name for field in fields(Protocol))
_MEASURED = ("run", "seed", "kimg", "key", "name", "value", "reason", "floor", *_PROTOCOL,
             "weights", "created", "seconds", "directory")  # fmt: skip


def results(folder: str | Path) -> "pandas.DataFrame":
    """Every score that ``flowexp eval`` left in the run directories below a folder.

    A row is one metric on one range of seeds. Its columns are

    - ``run``: the run directory, relative to the folder;
    - one per group of the run's configuration, with the chosen option: such as ``path``;
      the groups that the protocol names itself, such as ``sampler``, are the evaluation's own;
    - ``seed`` of training, and ``kimg`` that the evaluated checkpoint had been trained for;
    - ``key`` (``eval/fid50k``), ``name`` (``fid``), ``value``, the ``reason`` why it is nan, and
      what the metric adds to it, such as ``floor``, the score of held-out real data;
    - one per part of the protocol: ``metric``, ``extractor``, ``n_gen``, ``sampler``, ``nfe``, ...;
      two values are comparable if these agree, see :class:`flowexp.metrics.protocol.Protocol`;
    - ``weights`` (SHA-256 of the checkpoint), ``created``, ``seconds`` and ``directory`` of the
      evaluation, over all its metrics and ranges.

    Facts that a run does not state are missing (``NaN`` or ``None``).

    Raises:
        UsageError: It is not a folder, or a file of a run cannot be read.
    """
    import pandas

    root = Path(folder)
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder.", key="runs", remedy="Name a folder of runs.")
    paths = sorted(file.parent for file in root.rglob("results.json"))
    runs = [
        read_run(path, name=path.relative_to(root).as_posix()) for path in paths if is_run(path)
    ]
    rows = [row for run in runs for evaluation in run.evaluations for row in _rows(run, evaluation)]
    stated = dict.fromkeys(key for row in rows for key in row if key not in _MEASURED)
    return pandas.DataFrame(rows, columns=["run", *stated, *_MEASURED[1:]])


def _rows(run: RunRecord, evaluation: StoredEvaluation) -> list[dict[str, Any]]:
    chosen = run.manifest.get("choices", {})
    choices = {group: chosen[group] for group in chosen if not group.startswith("hydra/")}
    common = {
        "run": run.name,
        "seed": run.config.get("seed"),
        "kimg": evaluation.checkpoint.get("kimg"),
        "weights": evaluation.checkpoint.get("sha256"),
        "created": evaluation.created,
        "seconds": evaluation.seconds,
        "directory": evaluation.directory,
    }
    return [
        {**choices, **record.extra, **asdict(record.protocol), **common, "key": record.key,
         "name": record.name, "value": record.value, "reason": record.reason}
        for record in evaluation.records
    ]  # fmt: skip
