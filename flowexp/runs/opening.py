"""Opening a run: its model built from the stored config, its weights loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.config.instantiate import instantiate
from flowexp.files import file_sha256
from flowexp.runs.assemble import Built, build, resolve_device
from flowexp.runs.run_directory import RunDirectory
from flowexp.runs.weights import RAW, LoadedWeights, load_weights

if TYPE_CHECKING:
    from flowexp.pipeline import Pipeline

__all__ = ["OpenedRun", "first_average", "open_run"]


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A run with its weights loaded.

    Attributes:
        built: Its parts, on the pipeline's device and in evaluation mode.
        transform: How the weights were changed, in words; empty = not at all.
        selection: Which checkpoint of the run, for protocols: ``last``, or ``checkpoint NAME``.
    """

    run: RunDirectory
    built: Built
    weights: LoadedWeights
    transform: str
    selection: str

    @property
    def pipeline(self) -> "Pipeline":
        """What turns seeds into samples of this run."""
        return self.built.pipeline

    @property
    def weights_in_words(self) -> str:
        """Which weights, for a person: ``main at 64 kimg``."""
        return f"{self.weights.name} at {self.weights.kimg:g} kimg"


def open_run(config: Mapping[str, Any]) -> OpenedRun:
    """Open ``config['run']``, load the chosen weights and transform them as configured.

    Raises:
        UsageError: There is no such run, checkpoint or EMA, or the parts do not fit.
    """
    from flowexp.metrics.protocol import LAST
    from flowexp.models import Origin

    run = RunDirectory.open(Path(config["run"]))
    device = resolve_device(config["device"])
    name = config["weights"] or first_average(run.config())
    file = run.checkpoint(config["checkpoint"])
    selection = LAST if config["checkpoint"] == LAST else f"checkpoint {file.stem}"
    origin = Origin(file_sha256(file), name, run.calibrations, selection)
    built = build(config, origin=origin)
    weights = load_weights(run, built.network, weights=name, checkpoint=config["checkpoint"])
    transform = ""
    if config.get("weight_transform"):
        transform = instantiate(config["weight_transform"], key="weight_transform")(built.network)
    built.network.to(device).eval()
    built = replace(built, pipeline=built.pipeline.replace(device=device))
    return OpenedRun(run, built, weights, transform, selection)


def first_average(config: Mapping[str, Any]) -> str:
    """The average that is used where none is named: the run's first, or the raw weights."""
    return next((name for name, law in (config.get("ema") or {}).items() if law), RAW)
