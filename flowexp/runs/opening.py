"""Opening a run: its model built from the stored config, its weights loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.config.instantiate import instantiate
from flowexp.config.trust import Author
from flowexp.files import file_sha256
from flowexp.runs.assemble import Built, build, resolve_device
from flowexp.runs.run_directory import RunDirectory
from flowexp.runs.weights import RAW, LoadedWeights, load_weights

if TYPE_CHECKING:
    from flowexp.pipeline import Pipeline

__all__ = ["OpenedRun", "first_average", "open_run", "written_in"]


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A run with its weights loaded.

    Attributes:
        built: Its parts, on the pipeline's device and in evaluation mode.
        transform: How the weights were changed, in words; empty = not at all.
    """

    run: RunDirectory
    built: Built
    weights: LoadedWeights
    transform: str

    @property
    def pipeline(self) -> "Pipeline":
        """What turns seeds into samples of this run."""
        return self.built.pipeline

    @property
    def weights_in_words(self) -> str:
        """Which weights, for a person: ``main at 64 kimg``."""
        return f"{self.weights.name} at {self.weights.kimg:g} kimg"


def open_run(config: Mapping[str, Any], *, by: Author | None = None) -> OpenedRun:
    """Open ``config['run']``, load the chosen weights and transform them as configured.

    The config is taken to be of the run's own author; see :func:`written_in`.

    Raises:
        UsageError: There is no such run, checkpoint or EMA, or the parts do not fit.
    """
    from flowexp.models import Origin

    run = RunDirectory.open(Path(config["run"]))
    device = resolve_device(config["device"])
    name = config.get("weights") or first_average(run.config())
    digest = file_sha256(run.checkpoint(config["checkpoint"]))
    by = by or written_in(config)
    built = build(config, origin=Origin(digest, name, run.calibrations), by=by)
    weights = load_weights(run, built.network, weights=name, checkpoint=config["checkpoint"])
    transform = ""
    if config.get("weight_transform"):
        transform = instantiate(config["weight_transform"], key="weight_transform", by=by)(
            built.network
        )
    built.network.to(device).eval()
    built = replace(built, pipeline=built.pipeline.replace(device=device))
    return OpenedRun(run, built, weights, transform)


def written_in(config: Mapping[str, Any]) -> Author:
    """Who wrote the config of a verb that starts from a run: whoever stored the run or recipe."""
    return Author.of(RunDirectory(config.get("recipe") or config["run"]).config_file)


def first_average(config: Mapping[str, Any]) -> str:
    """The average that is used where none is named: the run's first, or the raw weights."""
    return next((name for name, law in (config.get("ema") or {}).items() if law), RAW)
