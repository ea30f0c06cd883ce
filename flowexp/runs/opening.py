"""Opening a run: its model built from the stored config, its weights loaded."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.config.instantiate import instantiate
from flowexp.config.trust import Author
from flowexp.files import file_sha256
from flowexp.progress import stage
from flowexp.runs.assemble import Built, build, resolve_device
from flowexp.runs.encoded_data import restore
from flowexp.runs.outside_parts import changed_since
from flowexp.runs.run_directory import RunDirectory, changed_keys
from flowexp.runs.trained import require_same_latents
from flowexp.runs.weights import LoadedWeights, first_average, load_weights

if TYPE_CHECKING:
    from flowexp.data import ImageArrays
    from flowexp.pipeline import Pipeline
    from flowexp.tasks import Task

_LOG = logging.getLogger(__name__)

__all__ = ["OpenedRun", "open_run", "written_in"]


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

    def remark_on_data(self, arrays: "ImageArrays", config: Mapping[str, Any]) -> str | None:
        """What to say if data under the name of the training data are not those any more.

        ``arrays`` are the training split that ``config`` names. None if it names another data set
        than the training did, or that one cannot be compared.
        """
        manifest, own = self.run.manifest(), {"dataset": self.run.config().get("dataset")}
        trained = manifest.get("dataset_fingerprint")
        on_pairs = any(str(name).startswith("pairs") for name in manifest.get("parents") or ())
        if on_pairs or trained in (None, arrays.fingerprint):
            return None
        if changed_keys(own, {"dataset": config["dataset"]}):
            return None
        size = manifest.get("dataset_size")
        return (
            f"the run was trained on other data{f' ({size} images)' if size else ''}, with the "
            f"fingerprint {trained}; {arrays.name} now has {len(arrays)} images and the "
            f"fingerprint {arrays.fingerprint}"
        )

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
    from flowexp.metrics.protocol import LAST
    from flowexp.models import Origin

    run = RunDirectory.open(Path(config["run"]))
    device = resolve_device(config["device"])
    name = config.get("weights") or first_average(run.config())
    by = by or written_in(config)
    file = run.checkpoint(config["checkpoint"])
    selection = LAST if config["checkpoint"] == LAST else f"checkpoint {file.stem}"
    with stage("reading the checkpoint"):
        origin = Origin(file_sha256(file), name, run.calibrations, selection)
    with stage("loading the run"):
        built = build(config, origin=origin, by=by)
        weights = load_weights(run, built.network, weights=name, checkpoint=config["checkpoint"])
    transform = ""
    if config.get("weight_transform"):
        node = config["weight_transform"]
        transform = instantiate(node, key="weight_transform", by=by)(built.network)
    _know_classes(built.pipeline.task, run)
    restore(built.autoencoder, run.manifest(), run=run.path)
    require_same_latents(config, built.autoencoder)
    built.autoencoder.device = device
    for remark in changed_since(run.manifest(), config):
        _LOG.warning("%s: %s.", run.path, remark)
    built.network.to(device).eval()
    built = replace(built, pipeline=built.pipeline.replace(device=device))
    return OpenedRun(run, built, weights, transform, selection)


def _know_classes(task: "Task", run: RunDirectory) -> None:
    """Give the task the classes that had no image in the run's training."""
    task.classes_without_images = run.manifest().get("classes_without_images") or ()
    label = getattr(task, "label", None)
    if label in task.classes_without_images:
        _LOG.warning("%s: no image of class %s was trained on.", run.path, label)


def written_in(config: Mapping[str, Any]) -> Author:
    """Who wrote the config of a verb that starts from a run: whoever stored the run or recipe."""
    return Author.of(RunDirectory(config.get("recipe") or config["run"]).config_file)
