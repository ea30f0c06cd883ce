"""``flowexp export``: weights and config of a run in one file that needs nothing else."""

import json
import logging
from functools import partial

from flowexp.apps.terminal import shown, table
from flowexp.config.application import Job, launch
from flowexp.config.trust import must_be_declared
from flowexp.errors import UsageError
from flowexp.files import file_sha256
from flowexp.progress import stage

__all__ = ["main"]

_LOG = logging.getLogger(__name__)


def export(job: Job) -> None:
    """Write the run's model into the job's directory."""
    with stage("loading PyTorch"):
        from flowexp.runs.opening import open_run

    from flowexp import __version__
    from flowexp.runs.exported import MODEL_GROUPS, load_exported, write_exported

    config = job.config
    if config["format"] != "safetensors":
        raise UsageError(
            f"unknown format {config['format']!r}.", key="format", remedy="Use safetensors."
        )
    opened = open_run(config)
    weights = opened.weights
    if opened.built.autoencoder.encodes:
        _LOG.warning("the file holds no autoencoder: its samples are latents.")
    facts = {
        "flowexp": __version__,
        "weights": weights.name,
        "step": str(weights.step),
        "kimg": f"{weights.kimg:g}",
        "checkpoint_sha256": weights.sha256,
        "classes_without_images": json.dumps([*opened.pipeline.task.classes_without_images]),
        "labels_dropped": json.dumps(opened.pipeline.model.labels_dropped),
    }
    with stage("writing the file"):
        path = write_exported(
            job.directory / f"{weights.name}.safetensors",
            opened.built.network.state_dict(),
            config=config,
            shape=opened.pipeline.shape,
            facts=facts,
        )
    packages = must_be_declared(config, groups=MODEL_GROUPS)
    with stage("reading the file back"):
        load_exported(path, device="cpu", packages=packages)
    named = f", packages={packages}" if packages else ""
    rows = [
        ("exported", f"{weights.name} weights at {weights.kimg:g} kimg"),
        ("file", shown(path)),
        ("sha256", file_sha256(path)),
        ("read it with", f"flowexp.load({json.dumps(shown(path), ensure_ascii=False)}{named})"),
    ]
    print(table(rows))


main = partial(launch, "export", export)
