"""``flowexp stream``: frames one after the other through a run's model."""

import logging
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from flowexp.apps.terminal import shown, table
from flowexp.config.application import Job, launch
from flowexp.config.instantiate import instantiate
from flowexp.errors import UsageError
from flowexp.files import write_json
from flowexp.progress import stage
from flowexp.requirements import NEVER_LEARNT

if TYPE_CHECKING:
    from flowexp.runs.opening import OpenedRun
    from flowexp.streaming import StreamBatch

__all__ = ["main"]

_LOG = logging.getLogger(__name__)


def stream(job: Job) -> None:
    """Send all frames through and write images and report into the job's directory."""
    with stage("loading PyTorch"):
        from flowexp.pipeline import save_images

    from flowexp.runs.assemble import part_of
    from flowexp.runs.opening import open_run, written_in
    from flowexp.streaming import StreamOutput, run_stream

    config, folder = job.config, job.directory
    by = written_in(config)
    source = part_of(config, "frames", by=by)
    opened = open_run(config)
    batch = _batch(config, opened)
    frames = source.frames(opened.built.dataset)
    sources: list[int] = []

    def emit(output: StreamOutput) -> None:
        sources.append(output.source)
        if config["png"]:
            save_images(folder, output.x[None], [output.index])

    report = run_stream(
        frames,
        batch,
        emit=emit,
        similarity=instantiate(config["similarity"], key="similarity", by=by),
        seed=config["seed"],
        queue_size=config["queue_size"],
    )
    # The figures, and for every frame the one it was made from.
    content = {
        **asdict(report),
        "fps": report.fps,
        "times": batch.times,
        "guidance": type(batch.guidance).__name__,
        "group": batch.group,
        "device": str(opened.pipeline.device),
        "weights": opened.weights.name,
        "weights_sha256": opened.weights.sha256,
        "sources": sources,
    }
    rows = [
        ("frames", f"{report.frames}, {report.skipped} skipped"),
        ("throughput", f"{report.fps:.4g} frames/s"),
        ("latency", f"mean {report.latency_mean * 1e3:.4g} ms, max {report.latency_max * 1e3:.4g}"),
        ("evaluations", f"{report.evaluations} of the network, {batch.stages} stages a frame"),
        ("weights", opened.weights_in_words),
        ("report", shown(folder / "stream.json")),
    ]
    print(
        table([*rows, ("images", shown(folder / "*.png"))] if config["png"] else rows), flush=True
    )
    write_json(folder / "stream.json", content)


def _batch(config: dict[str, Any], opened: "OpenedRun") -> "StreamBatch":
    """The stages on the run's model, which times, scalings and label must fit."""
    import torch

    from flowexp.networks.base import label_dim_of
    from flowexp.runs.assemble import part_of
    from flowexp.runs.opening import written_in
    from flowexp.streaming import StreamBatch
    from flowexp.tasks import refuse_given

    refuse_given(opened.pipeline.task, what="streams", key="run")
    pipeline, label = opened.pipeline, config["label"]
    if pipeline.autoencoder.encodes:
        raise UsageError(
            "frames are images, but the flow of this run is on latents.",
            key="run",
            remedy="Stream with a run that was trained with autoencoder=none.",
        )
    classes = label_dim_of(opened.built.network)
    if label is not None and not 0 <= label < classes:
        raise UsageError(
            f"label is {label}, but the network has {classes} classes.",
            key="label",
            remedy=f"Take 0 to {classes - 1}." if classes else "Leave label=null.",
        )
    if classes and label is None and pipeline.model.labels_dropped is False:
        _LOG.warning("label: null is the prediction without label, %s.", NEVER_LEARNT)
    labels = torch.tensor([-1 if label is None else label], device=pipeline.device)
    same = ("times", "seed", "group", "c_skip", "c_out", "add_noise")
    try:
        return StreamBatch(
            pipeline,
            guidance=part_of(config, "residual_guidance", by=written_in(config)),
            conditions={"labels": labels} if classes else None,
            **{key: config[key] for key in same},
        )
    except ValueError as error:
        raise UsageError(f"{error}.", key="times") from error


main = partial(launch, "stream", stream)
