"""The library face of runs: load a trained model, evaluate it. No Hydra in sight."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.errors import UsageError
from flowexp.runs.opening import open_run
from flowexp.runs.run_directory import RunDirectory
from flowexp.runs.weights import RAW

if TYPE_CHECKING:
    import torchmetrics

    from flowexp.evaluation import ScoreResult
    from flowexp.metrics.base import Metric
    from flowexp.pipeline import Pipeline

__all__ = ["evaluate", "load"]


def load(
    path: Path | str,
    *,
    weights: str | None = None,
    checkpoint: str = "last",
    device: str = "auto",
    batch_size: int = 64,
    packages: Collection[str] = (),
) -> "Pipeline":
    """The pipeline of a trained model: its network, guidance, sampler and task.

    Args:
        path: A run directory (of ``flowexp train`` or ``flowexp import``), or a file of
            ``flowexp export``.
        weights: Name of an average, ``raw`` for the weights without averaging, or None for the
            run's first average.
        checkpoint: ``last``, a step number, or a file name.
        device: ``auto`` = CUDA where there is one, else the CPU; or any torch device.
        batch_size: Samples per call of the sampler.
        packages: Packages beside flowexp, or single classes, that the run or file may name; those
            in ``FLOWEXP_TRUST`` and in the user's settings file may be named anyway, see
            :mod:`flowexp.config.trust`.

    Raises:
        UsageError: There is no such run, checkpoint, average or device, or it names what is
            neither a part of flowexp's nor of a trusted package.
    """
    from flowexp.config.trust import Declared, trusting

    file = Path(path)
    if file.suffix == ".safetensors":
        from flowexp.runs.exported import load_exported

        return load_exported(file, device=device, batch_size=batch_size, packages=packages)
    if file.is_file():
        raise UsageError(
            f"{file} is neither a run directory nor an exported file.",
            key="path",
            remedy=f"Import a published checkpoint first: flowexp import {shlex.quote(str(file))}",
        )
    own = {"run": str(file), "weights": weights, "checkpoint": checkpoint, "device": device}
    config = RunDirectory.open(file, key="path").config()
    # Files may name another recipe; a library call does not.
    config = {**config, "recipe": None, "batch_size": batch_size, **own}
    with trusting(Declared.named(packages)):
        return open_run(config).pipeline


def evaluate(
    pipeline: "Pipeline",
    *,
    metric: "str | Sequence[str] | Mapping[str, Metric | torchmetrics.Metric]" = "auto",
    num_samples: int = 5000,
    seeds: Sequence[int] | None = None,
) -> "ScoreResult":
    """Generate samples and measure them against the pipeline's data set.

    Args:
        pipeline: See :func:`load`.
        metric: Options of the group ``metric`` (``flowexp list metric``), or metrics by name, ours
            or torchmetrics'.
        num_samples: Number of samples, from the seeds 0, 1, ...
        seeds: Which seeds instead, one per sample.

    Returns:
        The numbers with protocol and floor; ``print`` shows them.

    Raises:
        UsageError: There is no such metric, something it needs is missing, or the pipeline has no
            data set.
    """
    from flowexp.data.locations import cache_dir
    from flowexp.evaluation import score
    from flowexp.metrics.protocol import LAST

    if pipeline.dataset is None:
        raise UsageError(
            "the pipeline has no data set to compare with.",
            key="pipeline",
            remedy="Load a run directory, or give one with pipeline.replace(dataset=...).",
        )
    pipeline.dataset.locate()
    origin = pipeline.model.origin
    return score(
        pipeline,
        metrics=metric if isinstance(metric, Mapping) else _metrics(metric),
        seeds=range(num_samples) if seeds is None else seeds,
        reference=pipeline.dataset.train(),
        heldout=pipeline.dataset.heldout(),
        cache_dir=cache_dir(warn=True),
        facts={
            "precision": "32-true",
            "ema": RAW if origin is None else origin.weights,
            "sampler": pipeline.sampling,
            "selection": LAST if origin is None else origin.selection,
        },
    )


def _metrics(names: str | Sequence[str]) -> dict[str, Any]:
    """The metrics of some options of the group ``metric``."""
    from flowexp.config.check import check
    from flowexp.config.instantiate import instantiate
    from flowexp.metrics.weight_files import no_download

    found: dict[str, Any] = {}
    for name in [names] if isinstance(names, str) else names:
        config = check("train", [f"metric={name}"]).sound()
        with no_download():
            found |= instantiate(config["metric"], key="metric")
    return found
